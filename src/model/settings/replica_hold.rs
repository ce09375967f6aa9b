//! Hold: keeps the number of replicas that is served from rising, falling or both.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::form::SettingValue;

/// What the values of `hold` look like, for messages.
pub const HOLD: &str =
    "up, down or both, with an optional end such as: down until 2026-12-02T10:00:00Z";

/// Directions in which the number of replicas does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldDirection {
    /// It does not rise.
    Up,
    /// It does not fall.
    Down,
    /// It does not change.
    Both,
}

/// A hold on the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplicaHold {
    /// What it prevents.
    pub direction: HoldDirection,
    /// When it ends, in seconds since 1970; `None` = when the setting is removed.
    pub until: Option<u64>,
}

impl HoldDirection {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Up, "up"), (Self::Down, "down"), (Self::Both, "both")];

    /// Its name in the setting.
    #[must_use]
    pub fn label(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(direction, _)| *direction == self)
            .map_or("", |(_, name)| name)
    }

    /// Whether the number must not rise.
    #[must_use]
    pub fn is_up(self) -> bool {
        self != Self::Down
    }

    /// Whether the number must not fall.
    #[must_use]
    pub fn is_down(self) -> bool {
        self != Self::Up
    }
}

impl ReplicaHold {
    /// Whether it applies at a time on the wall clock.
    #[must_use]
    pub fn is_active(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| {
            let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
            since_1970.is_ok_and(|now| now < Duration::from_secs(until))
        })
    }
}

impl FromStr for ReplicaHold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (direction, until) = match text.split_once(char::is_whitespace) {
            None => (text, None),
            Some((direction, rest)) => {
                let (until, time) = rest
                    .trim()
                    .split_once(char::is_whitespace)
                    .unwrap_or_default();
                if until != "until" {
                    return Err("not a direction, or a direction until a time".to_owned());
                }
                (direction, Some(time.trim()))
            }
        };
        let mut all = HoldDirection::ALL.into_iter();
        let direction = all
            .find(|(_, name)| *name == direction)
            .map(|(direction, _)| direction)
            .ok_or("unknown direction")?;
        let until = until.map(parse_time).transpose()?;
        Ok(Self { direction, until })
    }
}

fn parse_time(text: &str) -> Result<u64, String> {
    let time =
        humantime::parse_rfc3339(text).map_err(|_| "not a time in RFC 3339 and UTC".to_owned())?;
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    Ok(since_1970.map_or(0, |since| since.as_secs()))
}

impl fmt::Display for ReplicaHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.direction.label())?;
        match self.until {
            None => Ok(()),
            Some(until) => write!(f, " until {}", rfc3339(until)),
        }
    }
}

/// Formats a time in seconds since 1970. Later times than the last one of RFC 3339 are printed as that one.
#[must_use]
pub fn rfc3339(seconds: u64) -> String {
    /// 9999-12-31T23:59:59Z, the last time of RFC 3339.
    const LAST: u64 = 253_402_300_799;
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(LAST)));
    humantime::format_rfc3339_seconds(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

impl SettingValue for ReplicaHold {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_and_end_times_are_read_and_printed_alike() {
        for (text, direction, until) in [
            ("up", HoldDirection::Up, None),
            ("both", HoldDirection::Both, None),
            (
                "down until 2026-12-02T10:00:00Z",
                HoldDirection::Down,
                Some(1_796_205_600),
            ),
        ] {
            let hold = ReplicaHold { direction, until };
            assert_eq!(text.parse(), Ok(hold), "{text}");
            assert_eq!(hold.to_string(), text);
        }
        let spaced = "down   until  2026-12-02T10:00:00.5Z".parse::<ReplicaHold>();
        assert_eq!(
            spaced.unwrap().to_string(),
            "down until 2026-12-02T10:00:00Z"
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "sideways",
            "down until",
            "down until tomorrow",
            "until 2026-12-02T10:00:00Z",
            "down 2026-12-02T10:00:00Z",
            "down until 2026-12-02T10:00:00+01:00",
            "down until 2026-12-02",
            "DOWN",
        ] {
            assert!(text.parse::<ReplicaHold>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_hold_ends_at_its_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let hold = |until| ReplicaHold {
            direction: HoldDirection::Up,
            until,
        };
        assert!(hold(None).is_active(at(5)));
        assert!(hold(Some(10)).is_active(at(9)));
        assert!(!hold(Some(10)).is_active(at(10)));
    }
}
