//! What `segno dev` says on the terminal: one calm line per event, with the time it happened.

use std::io::{IsTerminal, Write};

use chrono::{DateTime, Local, Utc};

/// How a line feels; decides its mark and colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something arrived or finished well.
    Good,
    /// Something was lost.
    Bad,
    /// Something is on its way.
    Motion,
    /// Somebody has to do something.
    Attention,
    /// Background.
    Quiet,
}

impl Tone {
    fn mark(self) -> &'static str {
        match self {
            Tone::Good => "●",
            Tone::Bad => "✕",
            Tone::Motion => "→",
            Tone::Attention => "!",
            Tone::Quiet => "·",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Motion => "36",
            Tone::Attention => "33",
            Tone::Quiet => "2",
        }
    }
}

/// Standard output with or without colour. A closed pipe is not an error: whoever read us left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    color: bool,
}

impl Terminal {
    /// Colour only for a person: a terminal that is not `dumb`, and no `NO_COLOR`.
    pub(super) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            color: !unwanted && std::io::stdout().is_terminal(),
        }
    }

    /// An event of this moment.
    pub(super) fn say(&self, tone: Tone, text: &str) {
        self.say_at(Utc::now(), tone, text);
    }

    /// An event that happened at `at`. Further lines of `text` are indented under the first.
    pub(super) fn say_at(&self, at: DateTime<Utc>, tone: Tone, text: &str) {
        let local = at.with_timezone(&Local);
        let time = format!(
            "{}.{}",
            local.format("%H:%M:%S"),
            local.timestamp_subsec_millis() / 100 % 10
        );
        let text = text.replace('\n', "\n              ");
        let quiet = tone == Tone::Quiet;
        let body = if quiet { self.paint("2", &text) } else { text };
        self.plain(&format!(
            "{}  {} {body}",
            self.paint("2", &time),
            self.paint(tone.code(), tone.mark()),
        ));
    }

    /// A line without time, for headings and hints.
    pub(super) fn plain(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Emphasis inside a line.
    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// De-emphasis inside a line.
    pub(super) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The first eight characters of an id: enough to tell a handful of executors apart.
pub(super) fn short(id: &str) -> &str {
    id.char_indices().nth(8).map_or(id, |(end, _)| &id[..end])
}

/// `1 workflow`, `3 workflows`.
pub(super) fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// Seconds between two instants, never negative, e.g. `3.4 s`.
pub(super) fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    format!(
        "{:.1} s",
        (to - from).num_milliseconds().max(0) as f64 / 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shortened_on_character_boundaries() {
        assert_eq!(short("0f3c9a1e-77aa"), "0f3c9a1e");
        assert_eq!(short("local"), "local");
        assert_eq!(short("ünïcödé-ïd"), "ünïcödé-");
    }

    #[test]
    fn every_tone_can_be_said() {
        let terminal = Terminal { color: false };
        for tone in [
            Tone::Good,
            Tone::Bad,
            Tone::Motion,
            Tone::Attention,
            Tone::Quiet,
        ] {
            terminal.say(tone, "first\nsecond");
        }
    }

    #[test]
    fn without_colour_no_escape_is_written() {
        let plain = Terminal { color: false };
        assert_eq!(plain.bold("x"), "x");
        assert_eq!(Terminal { color: true }.bold("x"), "\x1b[1mx\x1b[0m");
    }
}
