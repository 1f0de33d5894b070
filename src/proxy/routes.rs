//! Routes: which one a request takes.

use std::sync::Arc;

use http::Method;

use crate::{
    config::Route,
    metrics::{Metrics, RouteMetrics},
    model::path::RequestPath,
};

/// A route with its counters.
pub struct ServedRoute {
    /// As configured.
    pub config: Route,
    /// Its name, for events and the log.
    pub name: Arc<str>,
    /// Its counters.
    pub metrics: RouteMetrics,
}

/// All routes, in the order of the configuration: the first that fits is taken.
pub struct Routes(Vec<Arc<ServedRoute>>);

impl Routes {
    /// Takes the configured routes.
    #[must_use]
    pub fn new(routes: &[Route], metrics: &Metrics) -> Self {
        let served = |route: &Route| {
            let (name, metrics) = (route.name.as_str().into(), metrics.route(&route.name));
            Arc::new(ServedRoute { config: route.clone(), name, metrics })
        };
        Self(routes.iter().map(served).collect())
    }

    /// The route of a request. `host` is without a port and in any case.
    #[must_use]
    pub fn find(
        &self,
        method: &Method,
        host: &str,
        path: &RequestPath<'_>,
        forward: bool,
    ) -> Option<&Arc<ServedRoute>> {
        self.0.iter().find(|route| {
            let route = &route.config;
            (route.forward || !forward)
                && has_path(&route.path, path.as_str())
                && has_method(route, method)
                && has_host(route, host)
        })
    }
}

/// A prefix of whole segments.
fn has_path(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A browser's preflight is about the method it asks for, and is answered for the route that has it.
fn has_method(route: &Route, method: &Method) -> bool {
    route.methods.is_empty() || route.methods.contains(method) || (route.cors.is_some() && method == Method::OPTIONS)
}

fn has_host(route: &Route, host: &str) -> bool {
    if route.hosts.is_empty() {
        return true;
    }
    let lower;
    let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        lower = host.to_ascii_lowercase();
        &lower
    } else {
        host
    };
    route.hosts.iter().any(|pattern| pattern.matches(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_is_of_whole_segments() {
        for (prefix, path, fits) in [
            ("/", "/", true),
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/", "/a", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
            ("/a", "/A", false),
        ] {
            assert_eq!(has_path(prefix, path), fits, "{prefix} {path}");
        }
    }
}
