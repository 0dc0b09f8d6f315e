//! A strict JSON scanner for headers whose shape is known in advance.
//!
//! It never builds a tree: the caller asks for the next token it expects. That bounds the depth by the
//! grammar of the caller, and lets every refusal say what was expected and where.

use crate::text::quote;
use std::borrow::Cow;

/// Largest integer that JavaScript represents exactly; sizes and offsets beyond it are refused.
pub const MAX_SAFE: u64 = 1 << 53;

/// Names that a JavaScript object could mistake for its own machinery.
pub fn is_reserved(name: &str) -> bool {
    matches!(name, "__proto__" | "constructor" | "prototype")
}

/// A cursor over JSON text.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Reader { text, at: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// "expected X at byte N, found Y".
    pub fn expected<T>(&self, what: &str) -> Result<T, String> {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => quote(c.encode_utf8(&mut [0; 4])),
            None => String::from("the end"),
        };
        Err(format!("expected {what} at byte {}, found {found}", self.at))
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// Skips white space and takes `token` if it comes next.
    pub fn take(&mut self, token: u8) -> bool {
        self.space();
        let hit = self.byte() == Some(token);
        self.at += usize::from(hit);
        hit
    }

    pub fn expect(&mut self, token: u8, what: &str) -> Result<(), String> {
        if self.take(token) {
            Ok(())
        } else {
            self.expected(what)
        }
    }

    /// Only white space may follow.
    pub fn end(&mut self) -> Result<(), String> {
        self.space();
        match self.byte() {
            None => Ok(()),
            Some(_) => self.expected("nothing after the closing brace"),
        }
    }

    /// A string; borrowed unless it has escapes.
    pub fn string(&mut self, what: &str) -> Result<Cow<'a, str>, String> {
        self.space();
        if self.byte() != Some(b'"') {
            return self.expected(what);
        }
        self.at += 1;
        let mut start = self.at;
        let mut owned: Option<String> = None;
        loop {
            match self.byte() {
                None => return self.expected("a closing quote"),
                Some(0..=0x1f) => return self.expected("no control character inside a string"),
                Some(b'"') => {
                    let piece = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(piece),
                        Some(text) => Cow::Owned(text + piece),
                    });
                }
                Some(b'\\') => {
                    let mut text = owned.unwrap_or_default();
                    text.push_str(&self.text[start..self.at]);
                    self.at += 1;
                    text.push(self.escape()?);
                    start = self.at;
                    owned = Some(text);
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = match self.byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.expected("a JSON escape"),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode(&mut self) -> Result<char, String> {
        let mut code = self.hex4()?;
        if (0xd800..0xdc00).contains(&code) {
            if self.byte() != Some(b'\\') || self.text.as_bytes().get(self.at + 1) != Some(&b'u') {
                return self.expected("the second half of a surrogate pair");
            }
            self.at += 2;
            let low = self.hex4()?;
            if !(0xdc00..0xe000).contains(&low) {
                return self.expected("the second half of a surrogate pair");
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.expected("no lone surrogate"),
        }
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = match self.byte() {
                Some(d @ b'0'..=b'9') => d - b'0',
                Some(d @ b'a'..=b'f') => d - b'a' + 10,
                Some(d @ b'A'..=b'F') => d - b'A' + 10,
                _ => return self.expected("four hexadecimal digits"),
            };
            code = code * 16 + u32::from(digit);
            self.at += 1;
        }
        Ok(code)
    }

    /// A plain non-negative integer up to 2^53: no sign, fraction, exponent or leading zero.
    pub fn integer(&mut self, what: &str) -> Result<u64, String> {
        self.space();
        let start = self.at;
        let mut value: u64 = 0;
        while let Some(d @ b'0'..=b'9') = self.byte() {
            value = value * 10 + u64::from(d - b'0');
            if value > MAX_SAFE {
                self.at = start;
                return self.expected(&format!("{what} of at most 2^53"));
            }
            self.at += 1;
        }
        let digits = self.at - start;
        let leading_zero = digits > 1 && self.text.as_bytes()[start] == b'0';
        if digits == 0 || leading_zero || matches!(self.byte(), Some(b'.' | b'e' | b'E')) {
            self.at = start;
            return self.expected(what);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::push_string;

    #[test]
    fn strings() {
        assert_eq!(Reader::new(r#" "a\u0062\n\ud83d\ude00/" "#).string("x").unwrap(), "ab\n😀/");
        assert!(matches!(Reader::new("\"plain\"").string("x").unwrap(), Cow::Borrowed("plain")));
        for bad in [
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "a",
            "\"\\ud800\\u0041\"",
        ] {
            assert!(Reader::new(bad).string("x").is_err(), "{bad}");
        }
    }

    #[test]
    fn integers() {
        assert_eq!(Reader::new(" 0").integer("x"), Ok(0));
        assert_eq!(Reader::new("9007199254740992").integer("x"), Ok(MAX_SAFE));
        for bad in ["-1", "01", "1.0", "1e3", "9007199254740993", "99999999999999999999999", "", "x"] {
            assert!(Reader::new(bad).integer("x").is_err(), "{bad}");
        }
    }

    #[test]
    fn round_trip_of_escapes() {
        let text = "a\"b\\c\u{1}\n😀";
        let mut out = String::new();
        push_string(&mut out, text);
        assert_eq!(Reader::new(&out).string("x").unwrap(), text);
    }
}
