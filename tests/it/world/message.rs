//! HTTP/1.1 messages read from a socket, byte by byte as they are: for odd requests and odder answers.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A request or an answer as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) first_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The value of a header, whatever its case; the first when there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The status of an answer; 0 when the first line has none.
    pub(crate) fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.first_line, self.text()))
    }
}

/// What came after the last message and belongs to the next.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

/// Reads one message; `None` at a clean end before its first byte. An answer without length (`to_end`) reads until the end.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer, to_end: bool) -> Result<Option<Message>> {
    let Some(head) = read_until(stream, buffer, b"\r\n\r\n").await? else { return Ok(None) };
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut message = Message { first_line: lines.next().unwrap_or_default().to_owned(), ..Message::default() };
    let headers = lines.filter_map(|line| line.split_once(':'));
    message.headers = headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    let bodiless = matches!(message.status(), 100..=199 | 204 | 304) && message.first_line.starts_with("HTTP/");
    if bodiless {
        return Ok(Some(message));
    }
    if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        message.body = read_chunked(stream, buffer).await?;
    } else if let Some(length) = message.header("content-length").and_then(|length| length.parse().ok()) {
        message.body = read_exactly(stream, buffer, length).await?;
    } else if to_end {
        while more(stream, buffer).await? > 0 {}
        message.body = std::mem::take(&mut buffer.0);
    }
    Ok(Some(message))
}

async fn read_chunked<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_until(stream, buffer, b"\r\n").await?.ok_or(ErrorKind::UnexpectedEof)?;
        let size = String::from_utf8_lossy(&line).split(';').next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| Error::other("a chunk without a size"))?;
        if size == 0 {
            while read_until(stream, buffer, b"\r\n").await?.is_some_and(|trailer| !trailer.is_empty()) {}
            return Ok(body);
        }
        body.extend(read_exactly(stream, buffer, size).await?);
        read_exactly(stream, buffer, 2).await?;
    }
}

async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer, end: &[u8]) -> Result<Option<Vec<u8>>> {
    loop {
        if let Some(position) = buffer.0.windows(end.len()).position(|window| window == end) {
            let rest = buffer.0.split_off(position + end.len());
            let mut head = std::mem::replace(&mut buffer.0, rest);
            head.truncate(position);
            return Ok(Some(head));
        }
        if more(stream, buffer).await? == 0 {
            return if buffer.0.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
    }
}

async fn read_exactly<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer, length: usize) -> Result<Vec<u8>> {
    while buffer.0.len() < length {
        if more(stream, buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = buffer.0.split_off(length);
    Ok(std::mem::replace(&mut buffer.0, rest))
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer) -> Result<usize> {
    const MOST: usize = 64 << 20;
    if buffer.0.len() > MOST {
        return Err(Error::other("a message without end"));
    }
    stream.read_buf(&mut buffer.0).await
}
