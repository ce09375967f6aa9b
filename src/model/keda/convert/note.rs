//! Notes for the user about a converted ScaledObject.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// The object, or a trigger of it, is not converted.
    Refused,
    /// An option has no equivalent in lagwise and is left out.
    Lost,
    /// A person has to do something.
    Todo,
    /// The same purpose is reached in another way.
    Differs,
    /// The option is not needed.
    Unneeded,
}

impl NoteKind {
    /// All of them, the most important first.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Lost,
        Self::Todo,
        Self::Differs,
        Self::Unneeded,
    ];

    /// Its name in comments and tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "not converted",
            Self::Lost => "no equivalent",
            Self::Todo => "to do",
            Self::Differs => "differs",
            Self::Unneeded => "not needed",
        }
    }

    /// Whether it makes the exit code 1.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        matches!(self, Self::Refused | Self::Lost)
    }
}

/// One note.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    pub kind: NoteKind,
    /// The field that it is about, such as `fallback.behavior`.
    pub field: String,
    /// What becomes of it, as a sentence without a full stop.
    pub text: String,
}

impl Note {
    /// Whether it concerns the Kafka cluster in the configuration, and not the HPA.
    #[must_use]
    pub fn is_about_login(&self) -> bool {
        const FIELDS: [&str; 7] = [
            "authenticationRef",
            "metadata.awsRegion",
            "metadata.bootstrapServers",
            "metadata.bootstrapServersFromEnv",
            "metadata.sasl",
            "metadata.tls",
            "metadata.unsafeSsl",
        ];
        FIELDS.iter().any(|field| self.field.ends_with(field))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, field, text } = self;
        write!(f, "{}: {field}: {text}", kind.label())
    }
}

/// Notes in the making.
#[derive(Clone, Debug, Default)]
pub struct Notes(Vec<Note>);

impl Notes {
    pub(super) fn add(
        &mut self,
        kind: NoteKind,
        field: impl Into<String>,
        text: impl Into<String>,
    ) {
        let note = Note {
            kind,
            field: field.into(),
            text: text.into(),
        };
        self.0.push(note);
    }

    pub(super) fn lost(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.add(NoteKind::Lost, field, text);
    }

    pub(super) fn differs(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.add(NoteKind::Differs, field, text);
    }

    pub(super) fn todo(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.add(NoteKind::Todo, field, text);
    }

    pub(super) fn unneeded(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.add(NoteKind::Unneeded, field, text);
    }

    pub(super) fn refused(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.add(NoteKind::Refused, field, text);
    }

    /// The notes without repetitions, the most important first.
    pub(super) fn sorted(mut self) -> Vec<Note> {
        let mut seen = BTreeSet::new();
        self.0.retain(|note| seen.insert(note.clone()));
        self.0.sort_by_key(|note| note.kind);
        self.0
    }
}
