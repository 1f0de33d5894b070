//! What the reading of all sections shares: the variables, and what was found out.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    environment::{Replaced, Variable, Variables},
    error::Mistake,
    files,
    value::{Parse, Raw},
};
use crate::model::secret::Secret;

/// Where something was written.
#[derive(Clone, Default)]
pub(super) struct Spot {
    /// The line; 0 if it was not written in the file.
    pub line: usize,
    /// The dotted key, or the name of the variable or flag.
    pub key: String,
    /// Whether it is a variable or a flag.
    pub outside: bool,
}

impl Spot {
    /// A variable that need not be set.
    pub(super) fn of_variable(name: &str) -> Self {
        Self { line: 0, key: format!("environment: {name}"), outside: true }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// A value and where it was written.
#[derive(Clone)]
pub(super) struct Found<T> {
    pub value: T,
    pub at: Spot,
}

/// There was a mistake, and it has been recorded.
pub(super) struct Recorded;

/// What all sections share.
pub(super) struct Context<'a> {
    file: Option<&'a Path>,
    line_starts: Vec<usize>,
    variables: Variables,
    replaced: Replaced,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<String>>,
    asked_keys: RefCell<BTreeSet<String>>,
    asked_variables: RefCell<BTreeSet<String>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(file: Option<&'a Path>, text: &str, variables: Variables) -> Self {
        Self {
            file,
            line_starts: text.match_indices('\n').map(|(newline, _)| newline.saturating_add(1)).collect(),
            replaced: Replaced::by(file.is_none(), &variables),
            variables,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            asked_keys: RefCell::default(),
            asked_variables: RefCell::default(),
        }
    }

    /// Whether there is no file, and the environment describes a gateway in place of the Nevermined proxy.
    pub(super) fn drop_in(&self) -> bool {
        self.replaced.nevermined
    }

    /// Whether there is no file, and the environment describes an endpoint in place of nexus-auth.
    pub(super) fn nexus_auth(&self) -> bool {
        self.replaced.nexus_auth
    }

    /// Which replaced systems the environment alone describes.
    pub(super) fn replaced(&self) -> Replaced {
        self.replaced
    }

    /// Whether there is a file.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The line of a byte of the file.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_add(1)
    }

    /// A variable that is set to something.
    pub(super) fn variable(&self, name: &str) -> Option<Found<&str>> {
        self.variable_or_empty(name).filter(|found| !found.value.is_empty())
    }

    /// A variable that is set, maybe to nothing.
    pub(super) fn variable_or_empty(&self, name: &str) -> Option<Found<&str>> {
        self.asked_variables.borrow_mut().insert(name.to_owned());
        let variable = self.variables.get(name)?;
        Some(Found { value: variable.value.as_str(), at: Self::spot(variable, name) })
    }

    fn spot(variable: &Variable, name: &str) -> Spot {
        let key = variable.flag.map_or_else(|| format!("environment: {name}"), |flag| format!("flag: {flag}"));
        Spot { line: 0, key, outside: true }
    }

    /// The first of some names of the same thing that is set.
    pub(super) fn first_variable(&self, names: &[&str]) -> Option<Found<&str>> {
        let mut set = names.iter().filter_map(|name| self.variable(name)).collect::<Vec<_>>().into_iter();
        let first = set.next()?;
        for other in set.filter(|other| other.value != first.value) {
            self.warn(format!("{} differs from {}, which is used", other.at.key, first.at.key));
        }
        Some(first)
    }

    /// A value out of a variable, by any of its names.
    pub(super) fn parsed_variable<T: Parse>(&self, names: &[&str]) -> Result<Option<Found<T>>, Recorded> {
        let Some(Found { value, at }) = self.first_variable(names) else { return Ok(None) };
        self.parse(Raw::Variable(value), at).map(Some)
    }

    /// A value, or a record of why it is none.
    pub(super) fn parse<T: Parse>(&self, raw: Raw<'_>, at: Spot) -> Result<Found<T>, Recorded> {
        match T::parse(raw) {
            Ok(value) => Ok(Found { value, at }),
            Err(message) => {
                self.mistake(&at, message);
                Err(Recorded)
            }
        }
    }

    /// Records a mistake.
    pub(super) fn mistake(&self, at: &Spot, message: impl Into<String>) {
        let file = self.file.filter(|_| !at.outside).map(Path::to_path_buf);
        let mistake = Mistake { file, line: at.line, key: at.key.clone(), message: message.into() };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Whether all is well so far.
    pub(super) fn no_mistakes(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// Records a mistake about a variable that may not be set.
    pub(super) fn mistake_in_variable(&self, name: &str, message: impl Into<String>) {
        let at = self.variables.get(name).map_or_else(|| Spot::of_variable(name), |set| Self::spot(set, name));
        self.mistake(&at, message);
    }

    /// Records a mistake about a byte of the file.
    pub(super) fn mistake_at_offset(&self, offset: usize, message: impl Into<String>) {
        self.mistake(&Spot { line: self.line(offset), ..Spot::default() }, message);
    }

    /// Records a warning.
    pub(super) fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Warns of variables that look like ours and are not, which are mostly typing errors. They are no mistakes,
    /// because Kubernetes makes some up for a service that happens to be called `tollgate`.
    pub(super) fn warn_of_unknown_variables(&self) {
        let asked = self.asked_variables.borrow();
        for name in self.variables.keys().filter(|name| name.starts_with("TOLLGATE_") && !asked.contains(*name)) {
            let of_kubernetes =
                name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT");
            if !of_kubernetes {
                let hint = hint(name, asked.iter().map(String::as_str));
                self.warn(format!("environment: {name}: there is no such variable{hint}; it has no effect"));
            }
        }
    }

    /// The mistakes in the order of the file, those of the environment last, and the warnings.
    pub(super) fn into_findings(self) -> (Vec<Mistake>, Vec<String>) {
        let mut mistakes = self.mistakes.into_inner();
        // Two sections may have asked for the same variable, hence the same finding twice.
        mistakes.sort_by(|a, b| {
            let order = |it: &Mistake| (it.file.is_none(), it.line);
            order(a).cmp(&order(b)).then_with(|| (&a.key, &a.message).cmp(&(&b.key, &b.message)))
        });
        mistakes.dedup();
        let mut seen = BTreeSet::new();
        let mut warnings = self.warnings.into_inner();
        warnings.retain(|warning| seen.insert(warning.clone()));
        (mistakes, warnings)
    }

    /// Remembers that somebody wanted to know about a key.
    pub(super) fn asked(&self, key: String) {
        self.asked_keys.borrow_mut().insert(key);
    }

    #[cfg(test)]
    pub(super) fn all_asked(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        (self.asked_keys.borrow().clone(), self.asked_variables.borrow().clone())
    }

    /// A secret in a variable, or in the file that the variable with `_FILE` names.
    pub(super) fn secret_variable(&self, name: &str) -> Result<Option<Found<Secret>>, Recorded> {
        let file_name = format!("{name}_FILE");
        let path = self.parsed_variable::<PathBuf>(&[&file_name])?;
        match (self.parsed_variable(&[name])?, path) {
            (Some(_), Some(path)) => {
                self.mistake(&path.at, format!("{name} is set too: give one of the two"));
                Err(Recorded)
            }
            (None, Some(path)) => self.secret_file(path).map(Some),
            (found, None) => Ok(found),
        }
    }

    /// A secret in a file.
    pub(super) fn secret_file(&self, path: Found<PathBuf>) -> Result<Found<Secret>, Recorded> {
        match files::secret(&path.value) {
            Ok(value) => Ok(Found { value, at: path.at }),
            Err(message) => {
                self.mistake(&path.at, message);
                Err(Recorded)
            }
        }
    }
}

/// `; did you mean …?` if something is near.
pub(super) fn hint<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> String {
    let nearest = known.map(|known| (distance(key, known), known)).min();
    let near = nearest.filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    near.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}

/// How many letters must be changed, added or removed (Levenshtein). Bounded: nobody mistypes a hundred letters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut above_left = i;
        let mut left = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let replaced = above_left.saturating_add(usize::from(x != *y));
            above_left = *cell;
            left = replaced.min(above_left.saturating_add(1)).min(left.saturating_add(1));
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_hinted_at() {
        let known = ["address", "name", "tls"];
        for (key, hinted) in [
            ("adress", "; did you mean `address`?"),
            ("nmae", "; did you mean `name`?"),
            ("names", "; did you mean `name`?"),
            ("colour", ""),
            ("", ""),
        ] {
            assert_eq!(hint(key, known.into_iter()), hinted, "{key}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }

    #[test]
    fn lines_are_counted_from_one() {
        let text = "a\nbc\n\nd";
        let context = Context::new(None, text, Variables::new());
        let lines: Vec<usize> = (0..=text.len()).map(|offset| context.line(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4, 4]);
    }
}
