//! The admin port, asked over plain HTTP.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The status and the body of `path`.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask(address, "GET", path, "")
}

/// The same after `body` was put there.
pub(crate) fn put(address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    ask(address, "PUT", path, body)
}

/// The same after `body` was sent to it.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    ask(address, "POST", path, body)
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let malformed =
        |found: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP response: {found:?}"));
    let mut response = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        response.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_ascii_lowercase());
    }
    let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| malformed(&head.join("\n")))?;
    let length = head.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = String::new();
    // Not every server closes the connection when asked to.
    response.take(length.unwrap_or(u64::MAX)).read_to_string(&mut body)?;
    Ok((status, body))
}

/// The sum of a metric over its labels; `None` if there is no such metric.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
