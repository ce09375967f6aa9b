//! Renders the demo: a frame for a terminal, or a line for a log.

use std::time::Duration;

use super::NAMESPACE;
use super::plan::Phase;
use super::reading::DemoReading;

/// Capabilities of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Whether to use block characters instead of ASCII.
    pub(super) unicode: bool,
    pub(super) colour: bool,
    /// Columns.
    pub(super) width: usize,
    /// Lines.
    pub(super) height: usize,
}

/// Everything displayed at one time.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) at: Duration,
    pub(super) length: Duration,
    pub(super) phase: Phase,
    pub(super) reading: DemoReading,
    /// Running consumers.
    pub(super) replicas: u32,
    /// Replicas proposed by the metric, before `behavior`.
    pub(super) desired: u32,
    /// Replicas that the HPA would have without the ceiling.
    pub(super) uncapped: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) per_replica: u32,
    /// The HPA's stabilization window for scaling down.
    pub(super) down_window: Duration,
    /// Largest lag of a partition so far: the length of a full bar.
    pub(super) partition_peak: u64,
    /// Total lag, one entry per tick.
    pub(super) lags: Vec<u64>,
    /// Replicas, one entry per tick.
    pub(super) counts: Vec<u64>,
    pub(super) links: Links,
}

/// URLs at which to see more.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// URL of the page.
    pub(super) page: String,
    /// URL of the metric in the external metrics API.
    pub(super) metric: String,
    /// URL of the Prometheus metrics.
    pub(super) metrics: String,
    /// The group to search for in the Prometheus metrics.
    pub(super) group: String,
}

impl Links {
    /// Commands for the user to copy.
    pub(super) fn text(&self) -> String {
        let Links {
            metric,
            metrics,
            group,
            ..
        } = self;
        format!("curl -sk '{metric}'\ncurl -s {metrics} | grep {group}\n")
    }

    /// Commands of lagwise that ask the daemon of the demo.
    pub(super) fn commands(&self) -> String {
        let Links { page, group, .. } = self;
        let daemon = page.trim_end_matches('/');
        // The HPA has the name of its group.
        format!(
            "lagwise status --daemon {daemon}\nlagwise explain {NAMESPACE}/{group} --daemon {daemon}\n"
        )
    }
}

/// Width of the numeric columns, to the left of the bars.
const NUMBERS: usize = 47;

/// Width of a chart at the end of the run.
const HISTORY: usize = 44;

/// Lines of a frame besides the partitions and the links, with the line of the cursor.
const OTHER_LINES: usize = 9;

impl Frame {
    /// Explains the current number of replicas.
    pub(super) fn reason(&self) -> String {
        let ceiling = self.reading.ceiling.unwrap_or_default();
        let lag = self.reading.lag.map_or(0, |lag| lag.0);
        if let Some(unknown) = &self.reading.unknown {
            format!("unknown, so the HPA holds: {unknown}")
        } else if self.reading.capped {
            format!(
                "capped: {ceiling} partitions; uncapped the HPA would run {}",
                self.uncapped
            )
        } else if self.replicas > self.uncapped {
            let window = self.down_window.as_secs();
            format!("not capped: the HPA waits {window} s before it removes replicas")
        } else {
            let worth = match self.uncapped {
                1 => "1 replica".into(),
                several => format!("{several} replicas"),
            };
            format!("not capped: a lag of {lag} is worth {worth}")
        }
    }

    /// One line, for output that is not a terminal.
    pub(super) fn line(&self) -> String {
        let number = |n: Option<u64>| n.map_or_else(|| "-".into(), |n| n.to_string());
        format!(
            "{} {:<9}  lag {:>6}  replicas {:>2}  desired {:>2}  ceiling {:>2}  {}",
            clock(self.at),
            self.phase.name(),
            number(self.reading.lag.map(|lag| lag.0)),
            self.replicas,
            self.desired,
            number(self.reading.ceiling.map(u64::from)),
            self.reason()
        )
    }

    /// Renders the whole frame so that it fits the terminal. Partitions for which there is no line are summed up in
    /// one. Long lines are cut, except the links, which users copy.
    pub(super) fn render(&self, style: Style) -> String {
        let all = self.links.text() + &self.links.commands();
        // Partitions come first: lagwise's own commands are shown only if no partition has to give way.
        let links = match self.rows_with_room(&all, style) < self.reading.rows.len() {
            true => self.links.text(),
            false => all,
        };
        // In the title line, so that everything fits 24 lines.
        let page = format!("  page: {}", self.links.page);
        self.picture(&page, self.rows_with_room(&links, style), style) + &links
    }

    /// Renders the last frame, with room for `text_lines` lines below it. It has no links, because the servers have
    /// ended.
    pub(super) fn render_above(&self, text_lines: usize, style: Style) -> String {
        let height = style.height.saturating_sub(text_lines);
        let rows = self.rows_with_room("", Style { height, ..style });
        self.picture("", rows, style)
    }

    /// The frame without links. The first `rows` partitions have a line each.
    fn picture(&self, page: &str, rows: usize, style: Style) -> String {
        let mut lines = Vec::new();
        let paint = |code: &str, text: String| {
            if style.colour && !text.is_empty() {
                format!("\x1b[{code}m{text}\x1b[0m")
            } else {
                text
            }
        };
        let title = format!("lagwise demo  {} of {}", clock(self.at), clock(self.length));
        let phase = self.phase.name();
        lines.push(format!("{}  {phase}{page}", paint("1", title)));
        lines.push("PARTITION   COMMITTED     LOG-END        LAG".to_owned());
        let bars = style.width.saturating_sub(NUMBERS).min(60);
        let shown = |n: Option<String>| n.unwrap_or_else(|| "-".into());
        for (partition, row) in self.reading.rows.iter().enumerate().take(rows) {
            let lag = row.lag.map_or(0, |lag| lag.0);
            let numbers = format!(
                "{partition:>9}  {:>10}  {:>10}  {:>9}  ",
                shown(row.committed.map(|offset| offset.to_string())),
                shown(row.end.map(|offset| offset.to_string())),
                shown(row.lag.map(|lag| lag.to_string())),
            );
            let drawn = bar(lag, self.partition_peak, bars, style.unicode);
            lines.push(format!("{numbers}{}", paint("36", drawn)));
        }
        let others = self.reading.rows.get(rows..).unwrap_or_default();
        if !others.is_empty() {
            let count = format!("{} more", others.len());
            let lags: Option<Vec<u64>> = others.iter().map(|row| Some(row.lag?.0)).collect();
            let lag = lags.map(|lags| lags.into_iter().fold(0, u64::saturating_add));
            let lag = shown(lag.map(|lag| lag.to_string()));
            lines.push(format!("{count:>9}  {lag:>33}"));
        }
        let lag = shown(self.reading.lag.map(|lag| lag.to_string()));
        let history = sparkline(&self.lags, self.length, self.at, style.unicode);
        lines.push(format!("{:>9}  {lag:>33}  {history}", "all"));
        lines.push(String::new());
        let ceiling = shown(self.reading.ceiling.map(|ceiling| ceiling.to_string()));
        lines.push(format!(
            "replicas now {}  desired {}  ceiling {ceiling}   HPA: min {}, max {}, {} per replica",
            paint("1", format!("{:>2}", self.replicas)),
            paint("1", format!("{:>2}", self.desired)),
            self.min,
            self.max,
            self.per_replica,
        ));
        let history = sparkline(&self.counts, self.length, self.at, style.unicode);
        lines.push(format!("replicas so far  {}", paint("32", history)));
        let colour = if self.reading.capped { "33" } else { "0" };
        lines.push(paint(colour, self.reason()));
        lines.push(String::new());
        let cut = lines.iter().map(|line| cut(line.trim_end(), style.width));
        cut.fold(String::new(), |text, line| text + &line + "\n")
    }

    /// How many partitions have their own line. The others share one.
    fn rows_with_room(&self, links: &str, style: Style) -> usize {
        let width = style.width.max(1);
        let wrapped = |line: &str| line.chars().count().div_ceil(width).max(1);
        let links: usize = links.lines().map(wrapped).sum();
        let room = style.height.saturating_sub(OTHER_LINES + links);
        let all = self.reading.rows.len();
        if all <= room {
            all
        } else {
            room.saturating_sub(1)
        }
    }
}

/// Cuts a line to `width` columns. Escape sequences count as no column.
fn cut(line: &str, width: usize) -> String {
    let mut kept = String::new();
    let mut columns = 0;
    let mut is_escape = false;
    for character in line.chars() {
        if character == '\x1b' {
            is_escape = true;
        }
        if !is_escape {
            columns += 1;
        }
        // Escape sequences after the cut are kept, because they reset the colour.
        if is_escape || columns <= width {
            kept.push(character);
        }
        is_escape &= character != 'm';
    }
    kept
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// A bar for `value` that is `width` columns long if `value` is `whole`; never empty for a value above 0.
fn bar(value: u64, whole: u64, width: usize, unicode: bool) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let steps = if unicode { PARTS.len() } else { 1 };
    let most = u128::try_from(width * steps).unwrap_or(u128::MAX);
    let length = (u128::from(value) * most).div_ceil(u128::from(whole.max(1)));
    let length = usize::try_from(length.min(most)).unwrap_or(0);
    let full = if unicode { "█" } else { "#" };
    let part = PARTS.get(length % steps).copied().unwrap_or_default();
    format!("{}{part}", full.repeat(length / steps))
}

/// A chart of `samples`. Its width is the elapsed part of the run; at the end it is [`HISTORY`] columns.
fn sparkline(samples: &[u64], length: Duration, at: Duration, unicode: bool) -> String {
    const BLOCKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    const ASCII: [&str; 8] = ["_", ".", "-", "~", "=", "+", "*", "#"];
    let levels = if unicode { BLOCKS } else { ASCII };
    let most = samples.iter().copied().max().unwrap_or(0).max(1);
    let share = at.as_millis().min(length.as_millis()) * u128::try_from(HISTORY).unwrap_or(0);
    let columns = usize::try_from(share.div_ceil(length.as_millis().max(1))).unwrap_or(HISTORY);
    (0..columns)
        .filter_map(|column| {
            let from = samples.len() * column / columns;
            let to = (samples.len() * (column + 1) / columns).max(from + 1);
            // With fewer samples than columns, some are drawn twice.
            let value = samples.get(from..to.min(samples.len()))?.iter().max()?;
            let level = (u128::from(*value) * 7).div_ceil(u128::from(most));
            levels.get(usize::try_from(level).unwrap_or(7)).copied()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::reading::PartitionRow;
    use crate::model::units::newtypes::{Lag, Offset};

    fn frame() -> Frame {
        let row = |partition: u64| {
            let end = 900 + i64::try_from(partition % 3).unwrap_or(0) * 90;
            let lag = u64::try_from(end - 350).unwrap_or(0);
            PartitionRow {
                committed: Some(Offset(350)),
                end: Some(Offset(end)),
                lag: Some(Lag(lag)),
            }
        };
        let mut rows: Vec<PartitionRow> = (0..12).map(row).collect();
        rows[3] = PartitionRow::default();
        rows[4].lag = Some(Lag(1));
        rows[5].lag = Some(Lag(0));
        Frame {
            at: Duration::from_secs(31),
            length: Duration::from_secs(90),
            phase: Phase::Quiet,
            reading: DemoReading {
                rows,
                lag: Some(Lag(7320)),
                ceiling: Some(12),
                capped: true,
                unknown: None,
            },
            replicas: 10,
            desired: 12,
            uncapped: 20,
            min: 1,
            max: 20,
            per_replica: 100,
            down_window: Duration::from_secs(10),
            partition_peak: 730,
            lags: (0..31).map(|s: u64| s * s * 8).collect(),
            counts: (0..31).map(|s: u64| if s < 16 { 1 } else { (s - 14).min(10) }).collect(),
            links: Links {
                page: "http://127.0.0.1:8082/".into(),
                metric: "https://127.0.0.1:6443/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/kafka_lag?labelSelector=group%3Dorders-workers,topic%3Dorders".into(),
                metrics: "http://127.0.0.1:8080/metrics".into(),
                group: "orders-workers".into(),
            },
        }
    }

    const PLAIN: Style = Style {
        unicode: true,
        colour: false,
        width: 80,
        height: 24,
    };

    #[test]
    fn renders_a_frame() {
        insta::assert_snapshot!(frame().render(PLAIN), @r"
        lagwise demo  0:31 of 1:30  quiet  page: http://127.0.0.1:8082/
        PARTITION   COMMITTED     LOG-END        LAG
                0         350         900        550  ████████████████████████▉
                1         350         990        640  █████████████████████████████
                2         350        1080        730  █████████████████████████████████
                3           -           -          -
                4         350         990          1  ▏
                5         350        1080          0
                6         350         900        550  ████████████████████████▉
                7         350         990        640  █████████████████████████████
                8         350        1080        730  █████████████████████████████████
                9         350         900        550  ████████████████████████▉
               10         350         990        640  █████████████████████████████
               11         350        1080        730  █████████████████████████████████
              all                               7320  ▁▂▂▂▂▂▃▃▃▄▅▅▆▇██

        replicas now 10  desired 12  ceiling 12   HPA: min 1, max 20, 100 per replica
        replicas so far  ▂▂▂▂▂▂▂▂▃▄▆▇████
        capped: 12 partitions; uncapped the HPA would run 20

        curl -sk 'https://127.0.0.1:6443/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/kafka_lag?labelSelector=group%3Dorders-workers,topic%3Dorders'
        curl -s http://127.0.0.1:8080/metrics | grep orders-workers
        ");
    }

    #[test]
    fn renders_a_frame_in_ascii() {
        let text = frame().render(Style {
            unicode: false,
            ..PLAIN
        });
        assert!(text.is_ascii());
        insta::assert_snapshot!(text, @r##"
        lagwise demo  0:31 of 1:30  quiet  page: http://127.0.0.1:8082/
        PARTITION   COMMITTED     LOG-END        LAG
                0         350         900        550  #########################
                1         350         990        640  #############################
                2         350        1080        730  #################################
                3           -           -          -
                4         350         990          1  #
                5         350        1080          0
                6         350         900        550  #########################
                7         350         990        640  #############################
                8         350        1080        730  #################################
                9         350         900        550  #########################
               10         350         990        640  #############################
               11         350        1080        730  #################################
              all                               7320  _.....---~==+*##

        replicas now 10  desired 12  ceiling 12   HPA: min 1, max 20, 100 per replica
        replicas so far  ........-~+*####
        capped: 12 partitions; uncapped the HPA would run 20

        curl -sk 'https://127.0.0.1:6443/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/kafka_lag?labelSelector=group%3Dorders-workers,topic%3Dorders'
        curl -s http://127.0.0.1:8080/metrics | grep orders-workers
        "##);
    }

    /// Lines of a text in a terminal of this width.
    fn height(text: &str, width: usize) -> usize {
        let lines = |line: &str| line.chars().count().div_ceil(width).max(1);
        text.lines().map(lines).sum()
    }

    #[test]
    fn a_frame_always_fits_a_terminal_of_24_lines_by_80_columns() {
        let reason = "no response of Kafka cluster \"embedded\" ".repeat(5);
        for unknown in [None, Some(reason)] {
            for partitions in [1, 12, 13, 24] {
                let mut frame = frame();
                let row = frame.reading.rows[0];
                frame.reading.rows.resize(partitions, row);
                frame.reading.unknown = unknown.clone();
                let text = frame.render(PLAIN);
                // The cursor needs one more line.
                assert!(height(&text, 80) < 24, "{partitions}: {text}");
                assert_eq!(text.contains(" more "), partitions > 12, "{text}");
                let more = format!("{} more ", partitions - 11.min(partitions));
                assert!(partitions <= 12 || text.contains(&more), "{text}");
            }
        }
    }

    #[test]
    fn a_higher_terminal_also_shows_commands_of_lagwise() {
        let rendered = |height| frame().render(Style { height, ..PLAIN });
        let commands = "lagwise status --daemon http://127.0.0.1:8082\n\
                        lagwise explain demo/orders-workers --daemon http://127.0.0.1:8082\n";
        assert!(rendered(30).ends_with(commands), "{}", rendered(30));
        assert!(!rendered(24).contains("--daemon"), "{}", rendered(24));
    }

    #[test]
    fn a_frame_fits_other_terminals() {
        for (width, height_max) in [(40, 20), (60, 50), (200, 16)] {
            let style = Style {
                width,
                height: height_max,
                ..PLAIN
            };
            let text = frame().render(style);
            assert!(
                height(&text, width) < height_max,
                "{width}x{height_max}: {text}"
            );
        }
    }

    #[test]
    fn the_last_frame_leaves_room_for_text_below_it() {
        let text = frame().render_above(11, PLAIN);
        insta::assert_snapshot!(text, @r"
        lagwise demo  0:31 of 1:30  quiet
        PARTITION   COMMITTED     LOG-END        LAG
                0         350         900        550  ████████████████████████▉
                1         350         990        640  █████████████████████████████
                2         350        1080        730  █████████████████████████████████
           9 more                                  -
              all                               7320  ▁▂▂▂▂▂▃▃▃▄▅▅▆▇██

        replicas now 10  desired 12  ceiling 12   HPA: min 1, max 20, 100 per replica
        replicas so far  ▂▂▂▂▂▂▂▂▃▄▆▇████
        capped: 12 partitions; uncapped the HPA would run 20

        ");
        for (width, lines) in [(80, 24), (60, 30), (200, 50)] {
            let style = Style {
                width,
                height: lines,
                ..PLAIN
            };
            let text = frame().render_above(11, style);
            // The prompt of the shell is in the last line.
            assert!(height(&text, width) + 11 < lines, "{width}x{lines}: {text}");
        }
    }

    #[test]
    fn a_cut_line_keeps_its_escape_sequences() {
        assert_eq!(cut("\x1b[1mabc\x1b[0md", 2), "\x1b[1mab\x1b[0m");
        assert_eq!(cut("abc", 3), "abc");
    }

    #[test]
    fn frames_have_colours_only_with_the_option() {
        assert!(!frame().render(PLAIN).contains('\x1b'));
        let coloured = Style {
            colour: true,
            ..PLAIN
        };
        assert!(frame().render(coloured).contains("\x1b[33mcapped"));
    }

    #[test]
    fn renders_a_line_without_a_terminal() {
        assert_eq!(
            frame().line(),
            "0:31 quiet      lag   7320  replicas 10  desired 12  ceiling 12  \
             capped: 12 partitions; uncapped the HPA would run 20"
        );
    }

    #[test]
    fn explains_the_replicas() {
        let mut frame = frame();
        frame.reading.capped = false;
        frame.reading.lag = Some(Lag(340));
        (frame.replicas, frame.desired, frame.uncapped) = (4, 4, 4);
        assert_eq!(
            frame.reason(),
            "not capped: a lag of 340 is worth 4 replicas"
        );
        (frame.replicas, frame.desired, frame.uncapped) = (12, 1, 1);
        assert_eq!(
            frame.reason(),
            "not capped: the HPA waits 10 s before it removes replicas"
        );
        frame.replicas = 1;
        assert_eq!(
            frame.reason(),
            "not capped: a lag of 340 is worth 1 replica"
        );
        frame.reading.unknown = Some("no answer".into());
        assert_eq!(frame.reason(), "unknown, so the HPA holds: no answer");
    }

    #[test]
    fn bars_are_proportional_and_never_empty_above_zero() {
        for (value, whole, width, expected) in [
            (0, 10, 4, ""),
            (1, 1000, 4, "▏"),
            (5, 10, 4, "██"),
            (10, 10, 4, "████"),
            (20, 10, 4, "████"),
            (9, 16, 2, "█▏"),
            (5, 0, 2, "██"),
            (u64::MAX, 1, 3, "███"),
            (3, 4, 0, ""),
        ] {
            assert_eq!(
                bar(value, whole, width, true),
                expected,
                "{value} of {whole}"
            );
        }
        assert_eq!(bar(1, 1000, 4, false), "#");
    }

    #[test]
    fn sparklines_cover_the_elapsed_time() {
        let second = Duration::from_secs(1);
        let drawn = |samples: &[u64], at| sparkline(samples, second * 44, second * at, true);
        assert_eq!(drawn(&[], 4), "");
        assert_eq!(drawn(&[0, 7, 3, 0], 4), "▁█▄▁");
        assert_eq!(drawn(&[0, 7], 4), "▁▁██");
        assert_eq!(drawn(&[0, 1, 7, 0], 2), "▂█");
        assert_eq!(drawn(&[0; 3], 99).chars().count(), HISTORY);
    }
}
