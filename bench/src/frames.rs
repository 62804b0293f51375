//! As much of WebSocket (RFC 6455) as a client needs that trusts its server.

/// The kinds of frames that are spoken of here.
pub const TEXT: u8 = 0x1;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

/// A request for a socket that speaks `graphql-transport-ws`. The key guards against caches, of which there are none
/// here, so it is always the same and the answer to it is not looked at.
pub fn upgrade(address: &str) -> Vec<u8> {
    format!(
        "GET /graphql HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: ZGVhbHN0cmVhbS1iZW5jaA==\r\n\
         sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
    )
    .into_bytes()
}

/// A frame for the server. Clients have to mask what they send; a mask of zeros leaves it as it is.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    bytes.push(0x80 | kind);
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The first frame of these bytes and how long it is; nothing when it is not complete.
///
/// # Errors
/// For what our server has no reason to send: parts of messages, masked frames.
pub fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, String> {
    let [head, length, ..] = *bytes else {
        return Ok(None);
    };
    if head & 0xf0 != 0x80 || length & 0x80 != 0 {
        return Err(format!("a frame that begins with {head:#04x} {length:#04x}"));
    }
    let (length, start): (usize, usize) = match length {
        126 => match bytes.get(2..4) {
            Some(length) => (
                length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
                4,
            ),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => (
                length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
                10,
            ),
            None => return Ok(None),
        },
        length => (usize::from(length), 2),
    };
    let end = start.saturating_add(length);
    let frame = bytes.get(start..end).map(|payload| Frame {
        kind: head & 0xf,
        payload,
    });
    Ok(frame.map(|frame| (frame, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as the server sends it: without a mask.
    fn from_server(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(kind, payload);
        let mask = bytes.len() - payload.len() - 4;
        bytes.drain(mask..mask + 4);
        bytes[1] &= 0x7f;
        bytes
    }

    #[test]
    fn frames_of_all_lengths_are_read_once_they_are_complete() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; length];
            let mut bytes = from_server(TEXT, &payload);
            let end = bytes.len();
            bytes.extend_from_slice(&from_server(PING, b"next"));
            let (frame, read) = first(&bytes).unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload, read), (TEXT, payload.as_slice(), end));
            let (frame, _) = first(&bytes[read..]).unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload), (PING, b"next".as_slice()));
            for cut in [0, 1, 2, end / 2, end - 1] {
                assert_eq!(first(&bytes[..cut.min(end - 1)]), Ok(None));
            }
        }
    }

    #[test]
    fn what_our_server_has_no_reason_to_send_is_refused() {
        assert!(first(&frame(TEXT, b"masked")).is_err());
        assert!(first(&[0x01, 0x00]).is_err());
    }
}
