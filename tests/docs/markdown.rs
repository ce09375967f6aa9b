//! Parses the parts of Markdown that the project's pages use: fenced blocks, headings, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

/// A page of the repository.
pub(crate) struct Page {
    pub(crate) path: String,
    /// Its text, with changes that are not written yet.
    pub(crate) text: String,
    is_changed: bool,
}

/// A fenced block.
pub(crate) struct Block {
    /// Its first line, counted from 1.
    pub(crate) line: usize,
    info: String,
    /// Its lines, without the indentation of the fence.
    pub(crate) content: String,
    indent: usize,
    lines: usize,
}

impl Block {
    pub(crate) fn language(&self) -> &str {
        self.info.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.info.split(' ').skip(1).any(|one| one == word)
    }

    pub(crate) fn attribute(&self, key: &str) -> Option<&str> {
        let mut words = self.info.split(' ').skip(1);
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text =
            fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self {
            path: path.to_owned(),
            text,
            is_changed: false,
        }
    }

    /// Writes the page back if it was changed.
    pub(crate) fn write(&self) {
        if self.is_changed {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            fs::write(root.join(&self.path), &self.text).unwrap();
        }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            let trimmed = line.trim_start();
            match (&mut open, trimmed.strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some(Block {
                        line: index + 1,
                        info: info.trim().to_owned(),
                        content: String::new(),
                        indent: line.len() - trimmed.len(),
                        lines: 0,
                    });
                }
                (Some(_), Some("")) => blocks.extend(open.take()),
                (Some(block), _) => {
                    let is_blank = |text: &str| text.trim().is_empty();
                    let rest = match line.split_at_checked(block.indent) {
                        Some((indent, rest)) if is_blank(indent) => rest,
                        _ => trimmed,
                    };
                    block.content.push_str(rest);
                    block.content.push('\n');
                    block.lines += 1;
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path);
        blocks
    }

    /// Replaces the lines of a block.
    pub(crate) fn replace(&mut self, block: &Block, content: &str) {
        let indent = " ".repeat(block.indent);
        let lines: Vec<&str> = self.text.lines().collect();
        let (before, rest) = lines.split_at(block.line);
        let after = &rest[block.lines..];
        let new = content.lines().map(|line| format!("{indent}{line}"));
        let all = before.iter().map(|line| (*line).to_owned());
        let all = all.chain(new.map(|line| line.trim_end().to_owned()));
        let all = all.chain(after.iter().map(|line| (*line).to_owned()));
        self.text = all.map(|line| line + "\n").collect();
        self.is_changed = true;
    }

    /// The lines between two that are marks.
    pub(crate) fn between(&self, begin: &str, end: &str) -> &str {
        let (begin, end) = (format!("{begin}\n"), format!("{end}\n"));
        let after = self.text.split_once(&begin).map(|(_, after)| after);
        let between = after.and_then(|after| after.split_once(&end));
        between
            .unwrap_or_else(|| panic!("{}: lacks {begin}or {end}", self.path))
            .0
    }

    pub(crate) fn replace_between(&mut self, begin: &str, end: &str, content: &str) {
        let before = self.between(begin, end);
        let from = self.text.find(begin).unwrap() + begin.len() + 1;
        let to = from + before.len();
        self.text.replace_range(from..to, content);
        self.is_changed = true;
    }

    /// The text without fenced blocks.
    pub(crate) fn prose(&self) -> String {
        let mut in_block = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            } else if !in_block {
                prose.push_str(line);
            }
            prose.push('\n');
        }
        prose
    }

    /// The targets of its links.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = Regex::new("`[^`\n]*`")
            .unwrap()
            .replace_all(&self.prose(), "")
            .into_owned();
        let link = Regex::new(r"\]\(([^()\s]+)\)").unwrap();
        let links = link.captures_iter(&prose);
        links.map(|found| found[1].to_owned()).collect()
    }

    fn headings(&self) -> Vec<(usize, String)> {
        let prose = self.prose();
        let lines = prose.lines().enumerate();
        lines
            .filter(|(_, line)| line.starts_with('#') && line.contains("# "))
            .map(|(index, line)| (index, line.trim_start_matches('#').trim().to_owned()))
            .collect()
    }

    /// The anchors of its headings, as GitHub and mdBook make them.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for (_, heading) in self.headings() {
            let anchor = anchor(&heading);
            let again = (1..).map(|n| format!("{anchor}-{n}"));
            let mut free = std::iter::once(anchor.clone()).chain(again);
            anchors.extend(free.find(|one| !anchors.contains(one)));
        }
        anchors
    }

    /// The text under the heading with this anchor, up to the next heading.
    pub(crate) fn section(&self, wanted: &str) -> String {
        let headings = self.headings();
        let mut from = headings
            .iter()
            .skip_while(|(_, heading)| anchor(heading) != wanted);
        let first = from.next().unwrap_or_else(|| panic!("no {wanted}")).0;
        let last = from.next().map_or(usize::MAX, |(line, _)| *line);
        let lines = self.text.lines().enumerate();
        lines
            .filter(|(index, _)| (first..last).contains(index))
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn blocks_headings_and_links_are_found() {
    let mut page = Page {
        path: "page.md".into(),
        text: "# A `b`: c\n[x](y.md#z) `[no](link)`\n\n1. do\n\n   ```sh runnable exit=1\n   a\n     b\n   ```\n\n```output\nold\n```\n## Next\n".into(),
        is_changed: false,
    };
    let anchors: Vec<_> = page.anchors().into_iter().collect();
    assert_eq!(anchors, ["a-b-c", "next"]);
    assert_eq!(page.links(), ["y.md#z"]);
    let blocks = page.blocks();
    assert_eq!(blocks[0].content, "a\n  b\n");
    assert_eq!((blocks[0].line, blocks[0].language()), (6, "sh"));
    assert!(blocks[0].has("runnable"));
    assert_eq!(blocks[0].attribute("exit"), Some("1"));
    page.replace(&blocks[1], "new\nlines\n");
    assert_eq!(page.blocks()[1].content, "new\nlines\n");
    assert!(page.text.ends_with("```\n## Next\n"));
    assert!(page.section("next").ends_with("## Next\n"));
}
