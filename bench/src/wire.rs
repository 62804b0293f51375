//! A client for HTTP/1.1 that keeps its connection: as little as is needed, so that the measured server and not the
//! measuring client takes the processor's time.

use std::io::{Error, ErrorKind, Result};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of an answer at most; more is a mistake.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One connection, on behalf of one user at a time.
pub struct Wire {
    stream: TcpStream,
    address: String,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}

impl Wire {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            out: Vec::with_capacity(2048),
            buffer: Vec::with_capacity(64 * 1024),
        })
    }

    /// Sends the body of a GraphQL request and answers the body that comes back with status 200.
    pub async fn post(&mut self, token: &str, body: &str) -> Result<&[u8]> {
        self.out.clear();
        self.out.extend_from_slice(b"POST /graphql HTTP/1.1\r\nhost: ");
        self.out.extend_from_slice(self.address.as_bytes());
        self.out
            .extend_from_slice(b"\r\ncontent-type: application/json\r\n");
        if !token.is_empty() {
            self.out.extend_from_slice(b"authorization: Bearer ");
            self.out.extend_from_slice(token.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        let length = format!("content-length: {}\r\n\r\n", body.len());
        self.out.extend_from_slice(length.as_bytes());
        self.out.extend_from_slice(body.as_bytes());
        self.stream.write_all(&self.out).await?;

        self.buffer.clear();
        let (start, end) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(start) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let length = content_length(&self.buffer[..start])?;
                break (start + 4, start + 4 + length);
            }
        };
        while self.buffer.len() < end {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let body = &self.buffer[start..end];
        if !self.buffer.starts_with(b"HTTP/1.1 200 ") {
            return Err(wrong(format!("not 200: {}", String::from_utf8_lossy(body))));
        }
        Ok(body)
    }

    /// Sends a request and answers its `data`; an error when there are `errors`.
    pub async fn query(&mut self, token: &str, document: &str, variables: Value) -> Result<Value> {
        let body = json!({ "query": document, "variables": variables }).to_string();
        let mut answer: Value =
            serde_json::from_slice(self.post(token, &body).await?).map_err(Error::other)?;
        match answer.get("errors") {
            Some(errors) => Err(wrong(format!("{document}: {errors}"))),
            None => Ok(answer["data"].take()),
        }
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head).map_err(Error::other)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if !name.eq_ignore_ascii_case("content-length") {
            return None;
        }
        value.trim().parse().ok()
    });
    length
        .filter(|length| *length <= MAX_ANSWER)
        .ok_or_else(|| wrong("an answer without a usable length"))
}
