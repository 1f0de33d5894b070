//! A Postgres database of a test's own, in the server at `TOLLGATE_TEST_POSTGRES`.

use sqlx::{Connection, Executor, PgConnection, Row};

use super::{free_port, run, secret, variable};

/// A database, gone when dropped.
pub struct Database {
    pub url: String,
    name: String,
    server: String,
}

impl Database {
    /// Fails without a server: what was not tested there is not tested.
    pub fn fresh() -> Self {
        let server = variable("TOLLGATE_TEST_POSTGRES")
            .expect("TOLLGATE_TEST_POSTGRES: the URL of a Postgres superuser (scripts/test-env sets it)");
        // A number that nobody else has meanwhile.
        let name = format!("tollgate_gate_{}", free_port());
        run(async {
            let mut admin = PgConnection::connect(&server).await.unwrap();
            admin.execute(sqlx::AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await.unwrap();
            admin.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        });
        if let Some((_, password)) = server.split_once('@').and_then(|(user, _)| user.rsplit_once(':')) {
            secret(password);
        }
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        Self { url, name, server }
    }

    /// Statements, one after the other.
    #[track_caller]
    pub fn execute(&self, statements: &str) {
        let statements = sqlx::AssertSqlSafe(statements.to_owned());
        run(async {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        });
    }

    /// One value, as a text.
    #[track_caller]
    pub fn value(&self, statement: &str) -> String {
        self.rows(statement)[0][0].clone().unwrap()
    }

    /// Rows, each value as text.
    pub fn rows(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        rows(&self.url, statement)
    }
}

/// Rows of any Postgres, each value as text: the statement must cast.
pub fn rows(url: &str, statement: &str) -> Vec<Vec<Option<String>>> {
    let statement = statement.to_owned();
    run(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| (0..row.len()).map(|column| row.get::<Option<String>, _>(column)).collect()).collect()
    })
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let removed = run(async {
            let mut admin = PgConnection::connect(&server).await?;
            admin.execute(sqlx::AssertSqlSafe(format!("drop database {name} with (force)"))).await
        });
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}
