//! Reads tables of the file, with the environment laid over them.
//!
//! A [`Section`] remembers which keys it was asked for; when it is dropped, every other key in its table is a
//! mistake. So a reader must ask for all its keys before it may give up on one of them.

use std::{cell::RefCell, collections::BTreeSet, fmt::Display, ops::RangeInclusive, path::PathBuf};

use toml_span::value::{Table, Value, ValueInner};

use super::{
    context::{Context, Found, Recorded, Spot, hint},
    value::{Parse, Raw},
};
use crate::model::secret::Secret;

/// A table of the file, or the absence of one, over which variables are laid all the same.
pub(super) struct Section<'a> {
    pub context: &'a Context<'a>,
    table: Option<&'a Table<'a>>,
    /// `route[2]`
    path: String,
    /// `route`
    pattern: String,
    line: usize,
    /// Something is there that is not a table, and that has been reported.
    broken: bool,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(context: &'a Context<'a>, document: Option<&'a Value<'a>>) -> Self {
        let (path, pattern) = (String::new(), String::new());
        let table = document.and_then(Value::as_table);
        Self { context, table, path, pattern, line: 0, broken: false, asked: RefCell::default() }
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
        self.context.asked(dotted(&self.pattern, key));
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
        if !self.broken {
            self.context.mistake(&self.spot(key), message);
        }
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

    /// Knows the two keys of a secret without reading them, because something stronger may have been given.
    pub(super) fn know_secret(&self, key: &str) {
        self.value(key);
        self.value(&format!("{key}_file"));
    }

    /// A table below this one.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let value = self.value(key);
        self.below(value, key, dotted(&self.path, key))
    }

    /// An array of tables below this one; a single table is an array of one. To be asked for once: each time, the keys
    /// that the caller did not ask for become mistakes.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.as_array() else { return vec![self.section(key)] };
        let path = |index: usize| format!("{}[{}]", dotted(&self.path, key), index.saturating_add(1));
        array.iter().enumerate().map(|(index, value)| self.below(Some(value), key, path(index))).collect()
    }

    fn below(&self, value: Option<&'a Value<'a>>, key: &str, path: String) -> Section<'a> {
        let table = value.and_then(Value::as_table);
        let line = value.map_or(self.line, |value| self.context.line(value.span.start));
        let broken = value.is_some() && table.is_none();
        if let Some(value) = value
            && broken
        {
            let kind = value.as_ref().type_str();
            self.context.mistake(
                &Spot { line, key: path.clone(), outside: false },
                format!("must be a table, and is of type {kind}"),
            );
        }
        let pattern = dotted(&self.pattern, key);
        Section { context: self.context, table, path, pattern, line, broken, asked: RefCell::default() }
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
        ValueInner::Float(number) => Raw::Float(*number),
        ValueInner::Boolean(value) => Raw::Boolean(*value),
        other => Raw::Other(other.type_str()),
    }
}

fn dotted(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
