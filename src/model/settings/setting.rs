//! A row of the table of settings.

use super::form::Form;

/// What a setting applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingScope {
    /// One metric: with `.NAME` after its key, an annotation applies to the metrics of that group or
    /// configured target only.
    Metric,
    /// The whole HPA: `.NAME` may not follow.
    Hpa,
}

/// A section of the configuration file that has settings of the table. Keys there are spelled with `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSection {
    /// `lag`: the default of every target.
    Lag,
    /// `targets[]`: configured targets.
    Targets,
}

/// A row of the table, for a field of the settings `S`.
#[derive(Debug)]
pub struct SettingRow<S> {
    /// The key of the annotation, after `lagwise.dev/`.
    pub key: &'static str,
    /// The key in the configuration file.
    pub file_key: &'static str,
    /// The section of the configuration file that has the setting.
    pub file: Option<FileSection>,
    /// What an annotation with this key applies to.
    pub scope: SettingScope,
    /// How values are written.
    pub form: Form,
    /// What applies where the setting is not set and has no default value, for the documentation.
    pub unset: Option<&'static str>,
    /// A value for the example file, where the setting has no default value.
    pub example: Option<&'static str>,
    pub(super) description: &'static str,
    pub(super) default: fn() -> Option<String>,
    pub(super) parse: fn(&Form, &str, &mut S) -> Result<(), String>,
    pub(super) print: fn(&S) -> Option<String>,
}

impl<S> SettingRow<S> {
    /// What the setting means.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.description.trim()
    }

    /// The default value, as it would be written.
    #[must_use]
    pub fn default(&self) -> Option<String> {
        (self.default)()
    }

    /// Sets `text` in `settings`.
    ///
    /// # Errors
    /// The problem with the text. Then `settings` stay unchanged.
    pub fn parse(&self, text: &str, settings: &mut S) -> Result<(), String> {
        (self.parse)(&self.form, text, settings)
    }

    /// The value in `settings`, as it would be written; `None` where it is not set.
    #[must_use]
    pub fn print(&self, settings: &S) -> Option<String> {
        (self.print)(settings)
    }
}

/// Joins `theirs` into `mine`. Returns whether both are set and differ.
pub(super) fn join_values<T: Copy + PartialEq>(
    mine: &mut Option<T>,
    theirs: Option<T>,
    safer: impl Fn(T, T) -> T,
) -> bool {
    match (*mine, theirs) {
        (Some(a), Some(b)) if a != b => {
            *mine = Some(safer(a, b));
            true
        }
        (before, theirs) => {
            *mine = before.or(theirs);
            false
        }
    }
}
