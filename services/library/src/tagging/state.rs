//! What a file's tags say about its genre, and what they should say.

use serde::{Deserialize, Serialize};

use crate::KnownTrack;

/// The fields that are ours alone, beside the genre that every player reads.
pub(crate) const HEARD: &str = "CHORALE_GENRE";
pub(crate) const CONFIDENCE: &str = "CHORALE_CONFIDENCE";
pub(crate) const MODEL: &str = "CHORALE_MODEL";
/// What the genre is called where fields are listed.
pub(crate) const GENRE: &str = "GENRE";

/// What to do with a genre that the file has from elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExistingGenre {
    /// Leave such a file alone.
    #[default]
    Keep,
    /// Write the genre that was heard in its place.
    Overwrite,
    /// Keep it, and write the genre that was heard beside it.
    Add,
}

/// The fields of a file's tags that tagging is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagState {
    /// The genres that players show.
    pub genres: Vec<String>,
    /// The label that was heard when the file was tagged last; the genre with this name is ours to change.
    pub heard: Option<String>,
    /// How sure the model was, a number from 0 to 1 with three decimals.
    pub confidence: Option<String>,
    /// The version of the model.
    pub model: Option<String>,
}

/// A field of a file's tags that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// `GENRE`, or one of our own: `CHORALE_GENRE`, `CHORALE_CONFIDENCE`, `CHORALE_MODEL`.
    pub field: &'static str,
    /// Its values; none if the field was not there.
    pub old: Vec<String>,
    /// Its new values.
    pub new: Vec<String>,
}

/// What is to happen to a file's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// They are as they should be.
    Same,
    /// They name a genre from elsewhere, which stays.
    Keep(Vec<String>),
    /// They are to become this.
    Change(TagState),
}

impl TagState {
    /// The fields in which `new` differs.
    pub(crate) fn changes_to(&self, new: &Self) -> Vec<FieldChange> {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let fields = [
            (GENRE, self.genres.clone(), new.genres.clone()),
            (HEARD, one(&self.heard), one(&new.heard)),
            (CONFIDENCE, one(&self.confidence), one(&new.confidence)),
            (MODEL, one(&self.model), one(&new.model)),
        ];
        fields
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .map(|(field, old, new)| FieldChange { field, old, new })
            .collect()
    }

    /// What is to become of these tags now that `track` was heard.
    pub(crate) fn plan(&self, track: &KnownTrack, existing: ExistingGenre) -> Plan {
        let name = genre_name(&track.genre);
        let ours = self.heard.as_deref().map(genre_name);
        let is_ours = |genre: &&String| ours.as_ref().is_some_and(|ours| same_genre(ours, genre));
        let (own, foreign): (Vec<_>, Vec<_>) = self.genres.iter().partition(is_ours);
        let foreign: Vec<String> = foreign.into_iter().cloned().collect();
        let named_by_others = foreign.iter().any(|genre| same_genre(genre, &name));
        let genres = match existing {
            ExistingGenre::Overwrite => vec![name],
            // What others have named needs no second time, and stays theirs.
            _ if named_by_others => return Plan::Keep(self.genres.clone()),
            ExistingGenre::Keep if own.is_empty() && !foreign.is_empty() => return Plan::Keep(foreign),
            _ => foreign.into_iter().chain([name]).collect(),
        };
        let new = Self {
            genres,
            heard: Some(track.genre.clone()),
            confidence: Some(format!("{:.3}", track.confidence)),
            model: Some(track.model_version.clone()),
        };
        if new == *self { Plan::Same } else { Plan::Change(new) }
    }
}

/// How players write a genre; what we have no other spelling for stays as the model calls it.
pub(crate) fn genre_name(label: &str) -> String {
    let name = match label {
        "blues" => "Blues",
        "classical" => "Classical",
        "country" => "Country",
        "disco" => "Disco",
        "hiphop" => "Hip-Hop",
        "jazz" => "Jazz",
        "metal" => "Metal",
        "pop" => "Pop",
        "reggae" => "Reggae",
        "rock" => "Rock",
        other => other,
    };
    name.to_owned()
}

/// Whether two spellings mean the same genre: `Hip-Hop`, `hip hop` and `hiphop` do.
pub(crate) fn same_genre(one: &str, other: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = char> + '_ {
        name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase)
    }
    one == other || letters(one).eq(letters(other)) && letters(one).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playlist::testing::track;

    fn state(genres: &[&str], heard: Option<&str>) -> TagState {
        TagState {
            genres: genres.iter().map(|genre| (*genre).to_owned()).collect(),
            heard: heard.map(str::to_owned),
            ..TagState::default()
        }
    }

    fn planned(old: &TagState, existing: ExistingGenre) -> Option<Vec<String>> {
        match old.plan(&track("a.mp3", "hiphop", "A"), existing) {
            Plan::Change(new) => Some(new.genres),
            Plan::Same | Plan::Keep(_) => None,
        }
    }

    #[test]
    fn a_genre_from_elsewhere_stays_unless_the_user_says_otherwise() {
        let rock = state(&["Rock"], None);
        assert_eq!(planned(&rock, ExistingGenre::Keep), None);
        assert_eq!(planned(&rock, ExistingGenre::Overwrite).unwrap(), ["Hip-Hop"]);
        assert_eq!(planned(&rock, ExistingGenre::Add).unwrap(), ["Rock", "Hip-Hop"]);
        assert_eq!(planned(&state(&[], None), ExistingGenre::Keep).unwrap(), ["Hip-Hop"]);
    }

    #[test]
    fn a_genre_of_ours_follows_what_is_heard() {
        let before = state(&["Rock"], Some("rock"));
        assert_eq!(planned(&before, ExistingGenre::Keep).unwrap(), ["Hip-Hop"]);
        let beside = state(&["Trip Hop", "Rock"], Some("rock"));
        assert_eq!(planned(&beside, ExistingGenre::Keep).unwrap(), ["Trip Hop", "Hip-Hop"]);
    }

    #[test]
    fn what_others_call_the_same_is_theirs() {
        let theirs = state(&["hip hop"], None);
        for existing in [ExistingGenre::Keep, ExistingGenre::Add] {
            assert_eq!(theirs.plan(&track("a.mp3", "hiphop", "A"), existing), Plan::Keep(vec!["hip hop".to_owned()]));
        }
    }

    #[test]
    fn the_second_time_nothing_changes() {
        let track = track("a.mp3", "jazz", "A");
        let Plan::Change(new) = TagState::default().plan(&track, ExistingGenre::Keep) else { panic!("a change") };
        assert_eq!(new.confidence.as_deref(), Some("0.800"));
        assert_eq!(new.plan(&track, ExistingGenre::Keep), Plan::Same);
        assert_eq!(new.plan(&track, ExistingGenre::Overwrite), Plan::Same);
        assert_eq!(TagState::default().changes_to(&new).len(), 4);
    }

    #[test]
    fn spellings_of_a_genre_are_told_from_other_genres() {
        assert!(same_genre("Hip-Hop", "hiphop") && same_genre("R&B", "r&b") && same_genre("&", "&"));
        assert!(!same_genre("pop", "k-pop") && !same_genre("-", "&"));
    }
}
