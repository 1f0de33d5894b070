//! Reads tables of the file, with the environment laid over them.
//!
//! A [`Section`] remembers which keys it was asked for; when it is dropped, every other key in its table is a
//! mistake. So a reader must ask for all its keys before it may give up on one of them.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt::{self, Display},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use toml_span::value::{Table, Value, ValueInner};

use super::{
    environment::{Variable, Variables},
    error::Mistake,
    files,
    value::{Parse, Raw},
};
use crate::model::secret::Secret;

/// Where something was written.
#[derive(Clone, Default)]
pub(super) struct Spot {
    /// The line; 0 if it was not written in the file.
    line: usize,
    /// The dotted key, or the name of the variable or flag.
    key: String,
    /// Whether it is a variable or a flag.
    outside: bool,
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
            variables,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            asked_keys: RefCell::default(),
            asked_variables: RefCell::default(),
        }
    }

    /// Whether there is no file, and the environment describes everything.
    pub(super) fn drop_in(&self) -> bool {
        self.file.is_none()
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

    fn parse<T: Parse>(&self, raw: Raw<'_>, at: Spot) -> Result<Found<T>, Recorded> {
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
        mistakes.sort_by_key(|mistake| (mistake.file.is_none(), mistake.line));
        // Two sections may have asked for the same variable.
        mistakes.dedup();
        let mut warnings = self.warnings.into_inner();
        warnings.dedup();
        (mistakes, warnings)
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        (self.asked_keys.borrow().clone(), self.asked_variables.borrow().clone())
    }
}

/// A table of the file, or the absence of one, over which variables are laid all the same.
pub(super) struct Section<'a> {
    pub context: &'a Context<'a>,
    table: Option<&'a Table<'a>>,
    /// `route[2]`
    path: String,
    /// `route`
    pattern: String,
    line: usize,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(context: &'a Context<'a>, document: Option<&'a Value<'a>>) -> Self {
        let (path, pattern) = (String::new(), String::new());
        let table = document.and_then(Value::as_table);
        Self { context, table, path, pattern, line: 0, asked: RefCell::default() }
    }

    /// Whether the table is in the file.
    pub(super) fn present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is in the table.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether a key is in the table and is a list of nothing.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.value(key).and_then(Value::as_array).is_some_and(Vec::is_empty)
    }

    fn value(&self, key: &str) -> Option<&'a Value<'a>> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.context.asked_keys.borrow_mut().insert(dotted(&self.pattern, key));
        self.table?.get(key)
    }

    /// Where a key is, or would be.
    pub(super) fn spot(&self, key: &str) -> Spot {
        let value = self.table.and_then(|table| table.get(key));
        let line = value.map_or(self.line, |value| self.context.line(value.span.start));
        let key = if key.is_empty() { self.path.clone() } else { dotted(&self.path, key) };
        Spot { line, key, outside: false }
    }

    /// Where a key of a table below this one is, or would be.
    pub(super) fn spot_below(&self, table: &str, key: &str) -> Spot {
        let value = self.table.and_then(|own| own.get(table));
        let inner = value.and_then(Value::as_table).and_then(|table| table.get(key));
        let line = inner.or(value).map_or(self.line, |value| self.context.line(value.span.start));
        Spot { line, key: dotted(&dotted(&self.path, table), key), outside: false }
    }

    /// Records a mistake about a key, which need not be there; the empty key is the whole table.
    pub(super) fn mistake(&self, key: &str, message: impl Into<String>) {
        self.context.mistake(&self.spot(key), message);
    }

    fn try_optional<T: Parse>(&self, key: &str, variables: &[&str]) -> Result<Option<Found<T>>, Recorded> {
        let written = self.value(key);
        if let Some(found) = self.context.parsed_variable(variables)? {
            return Ok(Some(found));
        }
        written.map(|value| self.context.parse(raw(value), self.spot(key))).transpose()
    }

    /// A key that may be left out, and the variables that override it.
    pub(super) fn optional<T: Parse>(&self, key: &str, variables: &[&str]) -> Option<Found<T>> {
        self.try_optional(key, variables).unwrap_or_default()
    }

    /// A key that has a default and no variable.
    pub(super) fn or<T: Parse>(&self, key: &str, default: T) -> T {
        self.optional(key, &[]).map_or(default, |found| found.value)
    }

    /// A number that has a default and bounds.
    pub(super) fn within<T: Parse + PartialOrd + Display>(
        &self,
        key: &str,
        bounds: RangeInclusive<T>,
        default: T,
    ) -> T {
        match self.optional::<T>(key, &[]) {
            Some(found) if bounds.contains(&found.value) => found.value,
            Some(found) => {
                let (least, most) = bounds.into_inner();
                self.context.mistake(&found.at, format!("must be from {least} to {most}"));
                default
            }
            None => default,
        }
    }

    /// A key that must be there.
    pub(super) fn required<T: Parse>(&self, key: &str, variables: &[&str]) -> Option<Found<T>> {
        let found = self.try_optional(key, variables).ok()?;
        if found.is_none() {
            self.mistake(key, "is missing");
        }
        found
    }

    /// A list, or a single value for a list of one. In a variable, separated by commas. None: not given.
    pub(super) fn list<T: Parse>(&self, key: &str, variables: &[&str]) -> Option<Vec<Found<T>>> {
        let written = self.value(key);
        if let Some(Found { value, at }) = self.context.first_variable(variables) {
            let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
            let found = words.filter_map(|word| self.context.parse(Raw::Variable(word), at.clone()).ok());
            return Some(found.collect());
        }
        let values =
            written?.as_array().map_or_else(|| written.into_iter().collect(), |all| all.iter().collect::<Vec<_>>());
        let spot = |value: &Value<'_>| Spot { line: self.context.line(value.span.start), ..self.spot(key) };
        Some(values.into_iter().filter_map(|value| self.context.parse(raw(value), spot(value)).ok()).collect())
    }

    /// A list of values without where they are; empty if it is not given.
    pub(super) fn values<T: Parse>(&self, key: &str, variables: &[&str]) -> Vec<T> {
        self.list(key, variables).unwrap_or_default().into_iter().map(|found| found.value).collect()
    }

    /// A secret: `key` or the file that `key_file` names, never both; overridden by the variable or the file that
    /// the variable with `_FILE` names.
    pub(super) fn secret(&self, key: &str, variable: Option<&str>) -> Result<Option<Found<Secret>>, Recorded> {
        let file_key = format!("{key}_file");
        let (value, file) = (self.value(key), self.value(&file_key));
        if let Some(variable) = variable
            && let Some(found) = self.context.secret_variable(variable)?
        {
            return Ok(Some(found));
        }
        match (value, file) {
            (Some(_), Some(_)) => {
                self.mistake(&file_key, format!("there is also `{key}`: give one of the two"));
                Err(Recorded)
            }
            (Some(value), None) => self.context.parse(raw(value), self.spot(key)).map(Some),
            (None, Some(file)) => {
                let path: Found<PathBuf> = self.context.parse(raw(file), self.spot(&file_key))?;
                self.context.secret_file(path).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// A table below this one.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let value = self.value(key);
        self.below(value, key, dotted(&self.path, key))
    }

    /// An array of tables below this one; a single table is an array of one.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.as_array() else { return vec![self.section(key)] };
        let path = |index: usize| format!("{}[{}]", dotted(&self.path, key), index.saturating_add(1));
        array.iter().enumerate().map(|(index, value)| self.below(Some(value), key, path(index))).collect()
    }

    fn below(&self, value: Option<&'a Value<'a>>, key: &str, path: String) -> Section<'a> {
        let table = value.and_then(Value::as_table);
        let line = value.map_or(self.line, |value| self.context.line(value.span.start));
        if let Some(value) = value
            && table.is_none()
        {
            let kind = value.as_ref().type_str();
            self.context.mistake(
                &Spot { line, key: path.clone(), outside: false },
                format!("must be a table, and is of type {kind}"),
            );
        }
        let pattern = dotted(&self.pattern, key);
        Section { context: self.context, table, path, pattern, line, asked: RefCell::default() }
    }
}

impl Context<'_> {
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

    fn secret_file(&self, path: Found<PathBuf>) -> Result<Found<Secret>, Recorded> {
        match files::secret(&path.value) {
            Ok(value) => Ok(Found { value, at: path.at }),
            Err(message) => {
                self.mistake(&path.at, message);
                Err(Recorded)
            }
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for key in self.table.into_iter().flat_map(Table::keys).filter(|key| !asked.contains(key.name.as_ref())) {
            let spot =
                Spot { line: self.context.line(key.span.start), key: dotted(&self.path, &key.name), outside: false };
            let hint = hint(&key.name, asked.iter().map(String::as_str));
            self.context.mistake(&spot, format!("there is no such key{hint}"));
        }
    }
}

fn raw<'a>(value: &'a Value<'_>) -> Raw<'a> {
    match value.as_ref() {
        ValueInner::String(text) => Raw::Text(text),
        ValueInner::Integer(number) => Raw::Integer(*number),
        ValueInner::Boolean(value) => Raw::Boolean(*value),
        other => Raw::Other(other.type_str()),
    }
}

fn dotted(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `; did you mean …?` if something is near.
fn hint<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> String {
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
            ("nmae", ""),
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
