//! A place in a tenant's history, as clients hold it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A place in the history of one tenant: everything up to it has been seen.
///
/// Written as an opaque text. The epoch is drawn at random when a history begins, so that a position of another tenant
/// is recognised as foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: i64,
    pub position: i64,
}

/// The text is not a position that this server wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAPosition;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.position.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let bytes: [u8; 16] = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| NotAPosition)?
            .try_into()
            .map_err(|_| NotAPosition)?;
        let number = |half: &[u8]| i64::from_be_bytes(half.try_into().expect("half of sixteen bytes"));
        let (epoch, position) = (number(&bytes[..8]), number(&bytes[8..]));
        if position < 0 {
            Err(NotAPosition)
        } else {
            Ok(Self { epoch, position })
        }
    }
}
