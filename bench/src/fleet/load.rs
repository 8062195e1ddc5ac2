//! Calls at a fixed rate, whatever the answers take, and what each cost.
//!
//! Each caller is a thread with a connection of its own and takes every n-th call. Latency counts from
//! the moment a call was due, so that a stall of the server is not hidden by callers that wait for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Connections of callers.
pub(crate) const CALLERS: u32 = 64;

/// A distribution, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl Spread {
    pub(crate) fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        let at = |share: f64| {
            let index = (all.len().saturating_sub(1)) as f64 * share;
            all.get(index.round() as usize).copied().unwrap_or(0)
        };
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
        }
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// From when it was due to its answer.
    took: Duration,
    /// From when it was due to when it was sent: the caller's own lateness.
    late: Duration,
    /// Time the executor spent on its answer.
    own: Duration,
}

/// What all calls cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) per_second: f64,
    /// From due to answered.
    pub(crate) total: Spread,
    /// The same without the time that the executor spent: what the relay adds.
    pub(crate) added: Spread,
    /// How late calls were sent, for the machine was busy: part of both.
    pub(crate) late: Spread,
}

impl Outcome {
    fn of(samples: Vec<Result<Sample, String>>, elapsed: Duration) -> anyhow::Result<Self> {
        let calls = samples.len();
        let good: Vec<Sample> = samples
            .iter()
            .filter_map(|sample| sample.as_ref().ok().copied())
            .collect();
        if let Some(error) = samples.iter().find_map(|sample| sample.as_ref().err()) {
            eprintln!("{} of {calls} calls failed: {error}", calls - good.len());
        }
        if good.is_empty() {
            bail!("no call was answered");
        }
        let spread = |of: fn(&Sample) -> Duration| {
            Spread::of(
                good.iter()
                    .map(|sample| of(sample).as_micros() as u64)
                    .collect(),
            )
        };
        Ok(Self {
            calls,
            failed: calls - good.len(),
            per_second: good.len() as f64 / elapsed.as_secs_f64(),
            total: spread(|sample| sample.took),
            added: spread(|sample| sample.took.saturating_sub(sample.own)),
            late: spread(|sample| sample.late),
        })
    }
}

/// Reads workflows through the servers, with so many callers spread over them, at `rate` calls a second
/// altogether; without one, as fast as they are answered.
pub(crate) fn relayed(
    servers: &[SocketAddr],
    app: &str,
    key: &str,
    callers: u32,
    rate: Option<u32>,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let start = Instant::now() + Duration::from_millis(200);
    let all = callers;
    let callers: Vec<_> = (0..all)
        .zip(servers.iter().copied().cycle())
        .map(|(caller, server)| {
            let request = format!(
                "GET /v2/orgs/local/apps/{app}/workflows/workflow-{caller} HTTP/1.1\r\nHost: {server}\r\n\
                 Authorization: Bearer {key}\r\nAccept: application/json\r\n\r\n"
            );
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(server)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                let mut buffer = Vec::new();
                let call = || call(&mut stream, &request, &mut buffer);
                Ok::<_, std::io::Error>(in_turn(start, time, rate, (caller, all), call))
            })
        })
        .collect();
    let mut samples = Vec::new();
    for caller in callers {
        match caller.join() {
            Ok(Ok(mut some)) => samples.append(&mut some),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => bail!("a caller panicked"),
        }
    }
    Outcome::of(samples, start.elapsed())
}

/// Makes the calls that are one caller's turn.
fn in_turn(
    start: Instant,
    time: Duration,
    rate: Option<u32>,
    (caller, callers): (u32, u32),
    mut call: impl FnMut() -> Result<Duration, String>,
) -> Vec<Result<Sample, String>> {
    let mut samples = Vec::new();
    let mut number = caller;
    loop {
        let due = match rate {
            Some(rate) => start + Duration::from_secs_f64(f64::from(number) / f64::from(rate)),
            None => Instant::now().max(start),
        };
        if due >= start + time {
            return samples;
        }
        number += callers;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed();
        let sample = call().map(|own| Sample {
            took: due.elapsed(),
            late,
            own,
        });
        if sample.is_err()
            && samples.iter().rev().take(10).all(Result::is_err)
            && samples.len() > 10
        {
            // Nobody is there.
            return samples;
        }
        samples.push(sample);
    }
}

/// A workflow as the API shows it; the executor put there what the answer cost it.
#[derive(Deserialize)]
struct Answer {
    output: Option<String>,
}

fn call(stream: &mut TcpStream, request: &str, buffer: &mut Vec<u8>) -> Result<Duration, String> {
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(request.as_bytes()).map_err(text)?;
    buffer.clear();
    let mut chunk = [0; 8 << 10];
    loop {
        let count = stream.read(&mut chunk).map_err(text)?;
        if count == 0 {
            return Err("the server closed the connection".to_owned());
        }
        buffer.extend_from_slice(&chunk[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) =
            response.parse(buffer).map_err(|error| error.to_string())?
        else {
            continue;
        };
        let status = response.code.unwrap_or(0);
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| {
                std::str::from_utf8(header.value)
                    .ok()?
                    .parse::<usize>()
                    .ok()
            })
            .ok_or("the answer has no length")?;
        let Some(body) = buffer.get(head..head + length) else {
            continue;
        };
        if status != 200 {
            return Err(format!("{status} {}", String::from_utf8_lossy(body)));
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        return Ok(own_time(answer.output.as_deref()));
    }
}

fn own_time(output: Option<&str>) -> Duration {
    Duration::from_micros(output.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The same question at the same rate to one executor, without a server between: it dials `listener`.
pub(crate) fn direct(listener: &TcpListener, rate: u32, time: Duration) -> anyhow::Result<Outcome> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut socket = tungstenite::accept(stream).context("the executor's handshake failed")?;
    ask(
        &mut socket,
        &json!({"type": "executor_info", "request_id": "0"}).to_string(),
    )
    .map_err(anyhow::Error::msg)?;
    let start = Instant::now();
    let question = json!({"type": "get_workflow", "request_id": "1", "workflow_id": "workflow-1",
        "load_input": true, "load_output": true})
    .to_string();
    let samples = in_turn(start, time, Some(rate), (0, 1), || {
        let text = ask(&mut socket, &question)?;
        let answer: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(own_time(
            answer
                .pointer("/output/Output")
                .and_then(|own| own.as_str()),
        ))
    });
    Outcome::of(samples, start.elapsed())
}

fn ask(socket: &mut WebSocket<TcpStream>, question: &str) -> Result<String, String> {
    let text = |error: tungstenite::Error| error.to_string();
    socket.send(Message::text(question)).map_err(text)?;
    loop {
        match socket.read().map_err(text)? {
            Message::Text(answer) => return Ok(answer.to_string()),
            Message::Close(_) => return Err("the executor left".to_owned()),
            _ => {}
        }
    }
}
