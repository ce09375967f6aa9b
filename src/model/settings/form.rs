//! Forms of values: how they are written, in annotations and in the configuration file alike, and
//! their bounds.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use super::By;
use super::cap_mode::CapMode;
use crate::model::units::names;
use crate::model::units::newtypes::{GroupId, Isolation, Lag, OffsetReset, TopicName};
use crate::model::units::partition_filter::PartitionFilter;
use crate::model::units::quantity::Milli;
use crate::model::units::topic_pattern::TopicPattern;

/// How the values of a setting are written, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number between two bounds, both included.
    Number {
        /// The smallest value.
        min: u64,
        /// The largest value; the largest of the integer's type means no bound.
        max: u64,
        /// The integer's type, as JSON Schema names it (`uint32`, `uint64`).
        format: &'static str,
    },
    /// A Kubernetes quantity above zero. The configuration file has whole numbers only.
    Quantity,
    /// A duration with its unit, between two bounds, both included.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// One of several names.
    Choice(fn() -> Vec<Choice>),
    /// Topic names: separated by commas in an annotation, a list in the configuration file.
    Topics,
    /// Text that the setting's type checks.
    Text {
        /// What is allowed, for messages.
        allowed: &'static str,
    },
}

/// A named value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The name, as a person writes it.
    pub name: &'static str,
    /// What it means, as a sentence.
    pub meaning: &'static str,
}

impl Form {
    /// A whole number that a 32-bit integer holds.
    #[must_use]
    pub const fn count(min: u32, max: u32) -> Self {
        // `u64::from` is not const.
        let (min, max) = (min as u64, max as u64);
        let format = "uint32";
        Self::Number { min, max, format }
    }

    /// The choices that the variants of `T` are.
    #[must_use]
    pub const fn choice_of<T: Choices>() -> Self {
        Self::Choice(choices::<T>)
    }

    /// The allowed values, for messages and the documentation.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Form::Flag => "true, false".to_owned(),
            Form::Number { min, max, .. } if self.is_unbounded(*max) => {
                format!("a whole number from {min}")
            }
            Form::Number { min, max, .. } => format!("a whole number from {min} to {max}"),
            Form::Quantity => "a quantity above zero, such as 100 or 5k".to_owned(),
            Form::Duration { min, max } => {
                let (min, max) = (in_one_unit(*min), in_one_unit(*max));
                format!("a duration from {min} to {max}, such as 90s, 10m or 7d")
            }
            Form::Choice(choices) => {
                let names: Vec<_> = choices().iter().map(|choice| choice.name).collect();
                names.join(", ")
            }
            Form::Topics => "topics, separated by commas".to_owned(),
            Form::Text { allowed } => (*allowed).to_owned(),
        }
    }

    /// Whether `max` is only the largest number of the integer type.
    #[must_use]
    pub fn is_unbounded(&self, max: u64) -> bool {
        [u64::from(u32::MAX), u64::MAX].contains(&max)
    }

    /// Reads a value of the form.
    pub(super) fn parse<T: SettingValue>(&self, text: &str) -> Result<T, String> {
        match *self {
            Form::Number { min, max, .. } => {
                let number: u64 = text.parse().map_err(|_| "not a whole number")?;
                within(&number, &min, &max)?;
            }
            Form::Duration { min, max } => within(&Duration::parse(text)?, &min, &max)?,
            Form::Text { .. } if text.is_empty() => return Err("empty".to_owned()),
            _ => {}
        }
        T::parse(text)
    }
}

fn within<T: PartialOrd>(value: &T, min: &T, max: &T) -> Result<(), String> {
    match (value < min, value > max) {
        (false, false) => Ok(()),
        _ => Err("out of range".to_owned()),
    }
}

/// A duration in the largest unit that divides it, such as `7d`.
fn in_one_unit(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let fits = |(unit, _): &(u64, &str)| seconds > 0 && seconds.checked_rem(*unit) == Some(0);
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1, "s"));
    format!("{}{name}", seconds.checked_div(unit).unwrap_or(seconds))
}

/// A type that a setting can have.
pub(super) trait SettingValue: Sized {
    /// Parses a value. The error is the problem with the text.
    fn parse(text: &str) -> Result<Self, String>;

    /// The text that [`parse`](Self::parse) reads as this value.
    fn print(&self) -> String;
}

/// Implements [`SettingValue`] by the standard traits for reading and printing.
macro_rules! printed_as_parsed {
    ($($type:ty: $problem:literal;)*) => {$(
        impl SettingValue for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| $problem.to_owned())
            }

            fn print(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

printed_as_parsed! {
    bool: "neither true nor false";
    u32: "not a whole number";
    NonZeroU32: "not a whole number above zero";
}

impl SettingValue for Lag {
    fn parse(text: &str) -> Result<Self, String> {
        let messages = u64::from_str(text).map_err(|_| "not a whole number")?;
        Ok(Self(messages))
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for Milli {
    fn parse(text: &str) -> Result<Self, String> {
        let quantity = Milli::parse(text).ok_or("not a quantity")?;
        match quantity > Milli::default() {
            true => Ok(quantity),
            false => Err("not above zero".to_owned()),
        }
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|error| format!("not a duration ({error})"))
    }

    fn print(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl SettingValue for BTreeSet<TopicName> {
    fn parse(text: &str) -> Result<Self, String> {
        let topic = |topic: &str| match names::topic(topic.trim())? {
            "" => Err("an empty topic name".to_owned()),
            name => Ok(TopicName::from(name)),
        };
        text.split(',').map(topic).collect()
    }

    fn print(&self) -> String {
        joined(self)
    }
}

fn joined<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    texts.join(",")
}

impl SettingValue for TopicPattern {
    fn parse(text: &str) -> Result<Self, String> {
        TopicPattern::parse(text)
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for PartitionFilter {
    fn parse(text: &str) -> Result<Self, String> {
        PartitionFilter::parse(text)
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for GroupId {
    fn parse(text: &str) -> Result<Self, String> {
        match names::group(text)? {
            "" => Err("empty".to_owned()),
            name => Ok(GroupId::from(name)),
        }
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

/// An enum whose variants a person selects by name.
pub trait Choices: Copy + PartialEq + 'static {
    /// Every variant with its name and meaning.
    const CHOICES: &'static [(Self, Choice)];
}

fn choices<T: Choices>() -> Vec<Choice> {
    T::CHOICES.iter().map(|(_, choice)| *choice).collect()
}

impl<T: Choices> SettingValue for T {
    fn parse(text: &str) -> Result<Self, String> {
        let named = T::CHOICES.iter().find(|(_, choice)| choice.name == text);
        named
            .map(|(value, _)| *value)
            .ok_or_else(|| "unknown".to_owned())
    }

    fn print(&self) -> String {
        let named = T::CHOICES.iter().find(|(value, _)| value == self);
        named
            .map(|(_, choice)| choice.name)
            .unwrap_or_default()
            .to_owned()
    }
}

const fn choice(name: &'static str, meaning: &'static str) -> Choice {
    Choice { name, meaning }
}

impl Choices for By {
    const CHOICES: &'static [(Self, Choice)] = &[
        (By::Partitions, choice("partitions", "All partitions.")),
        (
            By::Lagging,
            choice("lagging", "The partitions with lag, at least one."),
        ),
    ];
}

impl Choices for OffsetReset {
    const CHOICES: &'static [(Self, Choice)] = &[
        (
            OffsetReset::Latest,
            choice("latest", "At the log end: the lag is 0."),
        ),
        (
            OffsetReset::Earliest,
            choice("earliest", "At the log start: the whole partition is lag."),
        ),
    ];
}

impl Choices for Isolation {
    const CHOICES: &'static [(Self, Choice)] = &[
        (
            Isolation::ReadUncommitted,
            choice("read_uncommitted", "All records."),
        ),
        (
            Isolation::ReadCommitted,
            choice(
                "read_committed",
                "Records of committed transactions, up to the first open one.",
            ),
        ),
    ];
}

impl Choices for CapMode {
    const CHOICES: &'static [(Self, Choice)] = &[
        (
            CapMode::Advise,
            choice("advise", "Limits the value served, and writes nothing."),
        ),
        (
            CapMode::Enforce,
            choice("enforce", "Also keeps `maxReplicas` at the ceiling."),
        ),
    ];
}
