//! SPDX expressions, and which of them an allow-list satisfies.

/// What `[licenses]` of a `deny.toml` allows.
pub(crate) fn allowed(deny: &str) -> Vec<&str> {
    let section = deny.split("\n[licenses]").nth(1).expect("a section on licences");
    let list = section.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("a list");
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an expression can be satisfied with these licences alone.
pub(crate) fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { tokens: &tokens, allowed };
    reader.either() && reader.tokens.is_empty()
}

struct Reader<'a> {
    tokens: &'a [&'a str],
    allowed: &'a [&'a str],
}

impl Reader<'_> {
    fn either(&mut self) -> bool {
        let mut holds = self.both();
        while self.takes("OR") {
            holds |= self.both();
        }
        holds
    }

    fn both(&mut self) -> bool {
        let mut holds = self.one();
        while self.takes("AND") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.takes("(") {
            return self.either() & self.takes(")");
        }
        let Some((name, rest)) = self.tokens.split_first() else { return false };
        self.tokens = rest;
        if self.takes("WITH") {
            let Some((exception, rest)) = self.tokens.split_first() else { return false };
            self.tokens = rest;
            return self.allowed.contains(&format!("{name} WITH {exception}").as_str());
        }
        self.allowed.contains(name)
    }

    fn takes(&mut self, token: &str) -> bool {
        let found = self.tokens.first() == Some(&token);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
    for good in ["MIT", "MIT/X11", "GPL-3.0 OR MIT", "(MIT OR Zlib) AND Unicode-3.0"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0", &allowed));
    for bad in ["GPL-3.0", "Apache-2.0", "MIT AND GPL-3.0", "GPL-3.0 OR MIT AND Zlib", "", "(MIT", "none"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
