//! Which database, and its migrations.
