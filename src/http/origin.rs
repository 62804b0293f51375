//! The client's address, through proxies that are trusted and no others.
//!
//! Each proxy appends the address that it was asked from. So the list is read from the right, from the proxy next to us
//! outwards, for as long as the hops are trusted; the first that is not is the client, and what stands left of it is its
//! own invention.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{FORWARDED, HeaderName, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::headers::RequestId;
use super::serve::Client;
use crate::auth::Origin;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Hops that are looked at.
const HOPS: usize = 32;

/// Where a request comes from.
pub fn origin(parts: &Parts, trusted: &[IpNet], id: &RequestId) -> Origin {
    let connection = parts.extensions.get::<Client>();
    let ip = connection.map(|client| client_ip(client.address.ip(), &parts.headers, trusted));
    let agent = parts.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    Origin::new(ip, agent, id.as_str())
}

/// The client's address, asked over a connection from `peer`.
fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let told = outermost(peer, x_forwarded_for(headers), trusted);
    let told_otherwise = outermost(peer, forwarded(headers), trusted);
    match (told, told_otherwise) {
        (Some(ip), None) | (None, Some(ip)) => ip,
        // A proxy sets one of the two; when the other tells something else, it was the client who sent that.
        (Some(ip), Some(other)) if ip == other => ip,
        _ => peer,
    }
}

fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&ip))
}

/// The first hop from the right that is not trusted; the outermost trusted one when there is none, or when what stands
/// there is no address.
fn outermost(
    peer: IpAddr,
    hops: impl DoubleEndedIterator<Item = Option<IpAddr>>,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let mut hops = hops.rev().take(HOPS).peekable();
    hops.peek()?;
    let mut outermost = peer;
    for hop in hops {
        let Some(ip) = hop else { break };
        outermost = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    Some(outermost)
}

fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .map(str::trim)
}

fn x_forwarded_for(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = Option<IpAddr>> {
    items(headers, &X_FORWARDED_FOR).map(address)
}

/// The `for` of each element (RFC 7239).
fn forwarded(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = Option<IpAddr>> {
    items(headers, &FORWARDED).map(|element| {
        let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
        let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
        address(node.trim().trim_matches('"'))
    })
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"]
            .map(|net| net.parse().expect("a network"))
            .into();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        client_ip(peer.parse().expect("an address"), &map, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let forged = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(told("203.0.113.7", &forged), "203.0.113.7");
        assert_eq!(told("10.0.0.1", &forged), "192.0.2.1");
        assert_eq!(told("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(told("::ffff:10.0.0.1", &forged), "192.0.2.1");
    }

    #[test]
    fn the_rightmost_that_is_not_trusted_is_the_client() {
        let list = |list| told("10.0.0.1", &[("x-forwarded-for", list)]);
        assert_eq!(list("192.0.2.9, 203.0.113.7"), "203.0.113.7");
        assert_eq!(list("192.0.2.9, 203.0.113.7, 10.1.1.1"), "203.0.113.7");
        assert_eq!(list("10.2.2.2, 10.1.1.1"), "10.2.2.2");
        // What is no address ends the list: nothing left of it can be believed.
        assert_eq!(list("192.0.2.9, nonsense, 10.1.1.1"), "10.1.1.1");
        assert_eq!(list("nonsense"), "10.0.0.1");
        assert_eq!(list("192.0.2.9, 203.0.113.7:443"), "203.0.113.7");
        assert_eq!(list("2001:db8::1, fd00::1"), "2001:db8::1");
        // Lines are read one after the other.
        let lines = [
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        assert_eq!(told("10.0.0.1", &lines), "203.0.113.7");
    }

    #[test]
    fn the_standard_header_is_read_and_must_not_contradict() {
        let standard = |value| told("10.0.0.1", &[("forwarded", value)]);
        assert_eq!(
            standard("for=192.0.2.9, for=203.0.113.7;proto=https;by=10.0.0.1"),
            "203.0.113.7"
        );
        assert_eq!(standard("proto=https;For=\"[2001:db8::1]:4711\""), "2001:db8::1");
        assert_eq!(standard("for=\"[2001:db8::1]\""), "2001:db8::1");
        assert_eq!(standard("for=_hidden"), "10.0.0.1");
        let both = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=192.0.2.9")];
        assert_eq!(told("10.0.0.1", &both), "10.0.0.1");
    }
}
