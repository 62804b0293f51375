//! Where a request comes from, as far as it can be told.

use std::net::{IpAddr, Ipv6Addr};

use crate::telemetry::escaped;

/// Letters of a user agent that are kept.
const AGENT_LETTERS: usize = 200;

/// Where a request comes from: for the audit trail, for limits, for the log. Nothing here proves anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; nothing for what the server does by itself.
    pub ip: Option<IpAddr>,
    /// What the client calls itself: short, and without control characters.
    pub user_agent: Option<String>,
    /// The request's id, as it is in the answer, in the log and in errors.
    pub request_id: String,
}

impl Origin {
    /// An origin with what the client calls itself made fit for logs and tables.
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&[u8]>, request_id: &str) -> Self {
        Self {
            ip: ip.map(|ip| ip.to_canonical()),
            user_agent: user_agent.map(printable).filter(|agent| !agent.is_empty()),
            request_id: request_id.to_owned(),
        }
    }

    /// The same client with another request of its connection.
    pub fn of_request(&self, request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            ..self.clone()
        }
    }

    /// What limits by address count under: one address of IPv4, one network of 64 bits of IPv6, of which a client can
    /// take as many addresses as it likes.
    pub fn network(&self) -> Option<String> {
        Some(match self.ip? {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => {
                let network = u128::from(ip) & (u128::MAX << 64);
                format!("{}/64", Ipv6Addr::from(network))
            }
        })
    }
}

/// Text of bounded length that cannot break a line of a log.
fn printable(bytes: &[u8]) -> String {
    // No more is looked at than could be kept.
    let bytes = &bytes[..bytes.len().min(AGENT_LETTERS * 4)];
    let text = String::from_utf8_lossy(bytes);
    let short: String = text.trim().chars().take(AGENT_LETTERS).collect();
    escaped(&short).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_break_a_line_and_is_short() {
        let agent = |bytes: &[u8]| Origin::new(None, Some(bytes), "1").user_agent;
        assert_eq!(agent(b"Mozilla/5.0 (X11)").as_deref(), Some("Mozilla/5.0 (X11)"));
        assert_eq!(
            agent(b"a\r\nlevel=ERROR \x1b[31m").as_deref(),
            Some("a\\u{d}\\u{a}level=ERROR \\u{1b}[31m")
        );
        assert_eq!(
            agent("right\u{202e}left".as_bytes()).as_deref(),
            Some("right\\u{202e}left")
        );
        assert_eq!(agent(b"  "), None);
        let long = agent(&[b'x'; 100_000]).expect("it is there");
        assert_eq!(long.len(), AGENT_LETTERS);
        assert!(
            agent(&[0xff; 1000]).is_some(),
            "bytes that are no text do no harm"
        );
    }

    #[test]
    fn a_network_is_what_one_client_can_have() {
        let network = |ip: &str| {
            let ip = ip.parse().expect("an address");
            Origin::new(Some(ip), None, "1").network().expect("it is there")
        };
        assert_eq!(network("203.0.113.7"), "203.0.113.7");
        assert_eq!(network("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(Origin::default().network(), None);
    }
}
