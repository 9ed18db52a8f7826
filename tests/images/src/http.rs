//! HTTP/1.1, one thread per connection: enough for clients such as curl and wrk, and for our own calls.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::dial::dial;

/// Most bytes of a body that are read; more is refused with 413.
const BODY_LIMIT: usize = 16 << 20;

/// What was asked, and by whom.
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The body, empty when there is none.
    pub body: Vec<u8>,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The caller's end.
    pub client: SocketAddr,
}

/// What is answered.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Media type of the body.
    pub media: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// 200 with a body.
    pub fn ok(media: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Response {
            status: 200,
            media,
            body: body.into(),
        }
    }

    /// A refusal with its reason as text.
    pub fn refuse(status: u16, reason: &str) -> Self {
        Response {
            status,
            media: "text/plain",
            body: format!("{reason}\n").into_bytes(),
        }
    }
}

/// Serves for ever on every address of both families.
///
/// # Errors
/// When the port cannot be listened on.
pub fn serve(
    port: u16,
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Result<()> {
    let answer = std::sync::Arc::new(answer);
    // Linux takes both families on `::`; where IPv6 is off the IPv4 wildcard is all there is.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let answer = answer.clone();
        thread::spawn(move || {
            // A caller that goes away in the middle is the caller's affair.
            let _ = converse(stream, answer.as_ref());
        });
    }
    Ok(())
}

fn converse(stream: TcpStream, answer: &dyn Fn(&Request) -> Response) -> Result<()> {
    stream.set_nodelay(true)?;
    let (local, client) = (stream.local_addr()?, stream.peer_addr()?);
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return send(
                &mut writer,
                &Response::refuse(400, "this is not HTTP"),
                false,
            );
        };
        let (method, path) = (method.to_owned(), path.to_owned());
        let fields = Fields::read(&mut reader)?;
        if fields.length > BODY_LIMIT {
            return send(
                &mut writer,
                &Response::refuse(413, "the body is too long"),
                false,
            );
        }
        let mut body = vec![0; fields.length];
        reader.read_exact(&mut body)?;
        let response = answer(&Request {
            method,
            path,
            body,
            local,
            client,
        });
        send(&mut writer, &response, !fields.close)?;
        if fields.close {
            return Ok(());
        }
    }
}

/// The header fields that matter here.
struct Fields {
    length: usize,
    close: bool,
}

impl Fields {
    fn read(reader: &mut impl BufRead) -> Result<Self> {
        let mut fields = Fields {
            length: 0,
            close: false,
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                return Ok(fields);
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    fields.length = value
                        .parse()
                        .map_err(|_| Error::new(ErrorKind::InvalidData, "bad content-length"))?
                }
                "connection" => fields.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
}

fn send(writer: &mut impl Write, response: &Response, keep: bool) -> Result<()> {
    let reason = match response.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        _ => "Error",
    };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        response.status,
        response.media,
        response.body.len(),
        if keep { "keep-alive" } else { "close" }
    )
    .into_bytes();
    bytes.extend_from_slice(&response.body);
    writer.write_all(&bytes)
}

/// Asks `host:port` once, on a connection of its own, and answers the body of a 200.
///
/// # Errors
/// When the name has no address, the connection fails or stalls for 5 s, or the status is not 200.
pub fn ask(method: &str, host: &str, port: u16, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut stream = dial(host, port)?;
    stream.set_nodelay(true)?;
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let fields = Fields::read(&mut reader)?;
    if status.split_whitespace().nth(1) != Some("200") {
        return Err(Error::other(format!(
            "{host} answered `{}`",
            status.trim_end()
        )));
    }
    let mut answer = vec![0; fields.length.min(BODY_LIMIT)];
    reader.read_exact(&mut answer)?;
    Ok(answer)
}
