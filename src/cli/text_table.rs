//! Text tables for terminals. A few very long cells do not widen their column for all rows.

use unicode_width::UnicodeWidthStr;

use crate::model::units::short_duration::{from_seconds, short_duration};
use crate::model::units::untrusted_text::Printable;

/// Spaces between two columns.
const GAP: usize = 2;

/// Columns are wide enough for all cells up to this width.
const USUAL_WIDTH: usize = 32;

/// One column: its title and the alignment of its cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableColumn {
    title: &'static str,
    is_right_aligned: bool,
}

impl TableColumn {
    /// A column of text.
    pub(super) const fn text(title: &'static str) -> Self {
        Self {
            title,
            is_right_aligned: false,
        }
    }

    /// A column of numbers.
    pub(super) const fn number(title: &'static str) -> Self {
        Self {
            title,
            is_right_aligned: true,
        }
    }
}

/// A table with a header. Unsafe characters in cells are escaped.
#[derive(Debug)]
pub(super) struct TextTable {
    columns: Vec<TableColumn>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(super) fn new(columns: impl Into<Vec<TableColumn>>) -> Self {
        Self {
            columns: columns.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell for each column.
    pub(super) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let escaped = cells.map(|cell| Printable::unbounded(&cell).to_string());
        self.rows.push(escaped.collect());
    }

    /// The header and the rows, one a line. A cell that is too long for its column only moves the cells after it,
    /// until they fit again.
    pub(super) fn lines(&self) -> Vec<String> {
        let titles: Vec<String> = self.columns.iter().map(|c| c.title.to_owned()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| self.column_width(index))
            .collect();
        let rows = std::iter::once(&titles).chain(&self.rows);
        rows.map(|cells| self.line(cells, &widths)).collect()
    }

    /// The lines as one text.
    pub(super) fn render(&self) -> String {
        let lines = self.lines().into_iter();
        lines.fold(String::new(), |text, line| text + &line + "\n")
    }

    /// The width of the longest cell, or of the longest without the few that are much longer than the others.
    fn column_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        let mut widths: Vec<usize> = cells.map(|cell| cell.width()).collect();
        widths.sort_unstable();
        let last_usual = (widths.len() * 3).div_ceil(4).saturating_sub(1);
        let limit = widths.get(last_usual).copied().unwrap_or(0);
        let limit = limit.max(USUAL_WIDTH);
        let longest = widths.into_iter().filter(|width| *width <= limit).max();
        let title = self.columns.get(index).map_or(0, |c| c.title.width());
        longest.unwrap_or(0).max(title)
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        // Where the line ends, and where the next column starts.
        let (mut end, mut start) = (0, 1);
        for ((cell, column), width) in cells.iter().zip(&self.columns).zip(widths) {
            let own = cell.width();
            let wanted = if column.is_right_aligned {
                start + width.saturating_sub(own)
            } else {
                start
            };
            let gap = if end == 0 { 1 } else { GAP };
            let at = wanted.max(end + gap);
            line.extend(std::iter::repeat_n(' ', at - end));
            line.push_str(cell);
            end = at + own;
            start += width + GAP;
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// The cell of a value; a dash if there is none.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Titles of the columns of [`rate_texts`].
pub(super) const RATE_COLUMNS: [&str; 3] = ["PRODUCED/s", "CONSUMED/s", "DRAIN"];

/// The cells of rates: messages per second, and the time until the lag is gone.
pub(super) fn rate_texts(produced: f64, consumed: f64, drain_seconds: Option<f64>) -> [String; 3] {
    let drain = drain_seconds.map(|left| short_duration(from_seconds(left)));
    [
        rate(produced),
        rate(consumed),
        drain.unwrap_or_else(|| "never".to_owned()),
    ]
}

/// Formats a rate, with one decimal place below 100.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 100.0 => format!("{few:.1}"),
        many => format!("{many:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [TableColumn; 3] = [
        TableColumn::text("NAME"),
        TableColumn::number("LAG"),
        TableColumn::text("NOTE"),
    ];

    fn rendered(rows: &[[&str; 3]]) -> Vec<String> {
        let mut table = TextTable::new(COLUMNS);
        for row in rows {
            table.add_row(row.map(str::to_owned));
        }
        table.lines()
    }

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_with_spaces() {
        let lines = rendered(&[["a", "5", ""], ["größe", "12345", "x"]]);
        assert_eq!(
            lines,
            [" NAME     LAG  NOTE", " a          5", " größe  12345  x"]
        );
        assert_eq!(rendered(&[]), [" NAME  LAG  NOTE"]);
    }

    #[test]
    fn a_long_name_moves_only_its_own_row() {
        let long = "n".repeat(40);
        let mut rows = vec![["a", "5", "x"]; 4];
        rows.push([&long, "5", "x"]);
        let lines = rendered(&rows);
        assert_eq!(lines[1], " a       5  x");
        assert_eq!(lines[5], format!(" {long}  5  x"));
    }

    #[test]
    fn cells_return_to_their_column_after_a_name_that_is_a_little_too_long() {
        let long = "n".repeat(33);
        let usual = "u".repeat(32);
        let mut rows = vec![[usual.as_str(), "1234567890", "x"]; 4];
        rows.push([&long, "5", "x"]);
        let lines = rendered(&rows);
        assert_eq!(lines[1].find('x'), lines[5].find('x'), "{lines:#?}");
    }

    #[test]
    fn a_column_of_long_names_is_wide() {
        let long = "n".repeat(60);
        let lines = rendered(&[[&long, "5", "x"], [&long, "77", "x"]]);
        assert_eq!(lines[1].len(), lines[2].len());
    }

    #[test]
    fn cells_stay_on_one_line() {
        let lines = rendered(&[["a\nb", "5", "\u{1b}[2J"]]);
        assert_eq!(lines[1], " a\\nb    5  \\u{1b}[2J");
    }
}
