//! The command line of nexus-auth (nexus.md section 1.1), so that what started it starts us.

use std::ffi::OsString;

use clap::Args;

use super::SourceArgs;
use crate::config::Environment;

/// The commands that nexus-auth has.
const COMMANDS: [&str; 2] = ["run", "generate"];

/// Its flags are written as Go's programs take them, `-net-uid 2` or `-net-uid=2`: a long name after one dash. With two
/// they mean the same, there as here, so in the commands of nexus-auth the second dash is added. What has one letter, or is a
/// negative number, stays.
pub(super) fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).and_then(|command| command.to_str()).is_some_and(|command| COMMANDS.contains(&command)) {
        for argument in arguments.iter_mut().skip(2) {
            let letters = argument.as_encoded_bytes();
            if letters.len() > 2 && letters.starts_with(b"-") && letters.get(1).is_some_and(u8::is_ascii_alphabetic) {
                let mut longer = OsString::from("-");
                longer.push(&*argument);
                *argument = longer;
            }
        }
    }
    arguments
}

/// The flags of `run`. An empty one, and a number below 0, count as not given.
#[derive(Args)]
#[command(args_override_self = true)]
pub(super) struct Options {
    /// Where to answer NGINX; `:8080` is that port of every address. (`NEXUS_AUTH_LISTEN_ADDR`)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_addr: Option<String>,
    /// The base URL of Pylon. (`NEXUS_PYLON_ENDPOINT`)
    #[arg(long, value_name = "URL")]
    pylon_endpoint: Option<String>,
    /// The number of the subnet. (`NEXUS_PYLON_NETUID`)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    net_uid: Option<i64>,
    /// Words, and what follows the first of them, were ignored.
    #[arg(hide = true, trailing_var_arg = true)]
    ignored: Vec<String>,
}

impl Options {
    /// Where the configuration of nexus-auth comes from.
    pub(super) fn sources(self, sources: SourceArgs) -> SourceArgs {
        let text = |given: Option<String>| given.filter(|text| !text.is_empty());
        let set = || Environment::from_process().value("NEXUS_AUTH_LISTEN_ADDR");
        SourceArgs {
            // Given always: this is nexus-auth, whatever else is in the environment.
            auth_listen: text(self.listen_addr).or_else(set).or_else(|| Some(":8080".to_owned())),
            pylon_endpoint: text(self.pylon_endpoint),
            netuid: self.net_uid.filter(|netuid| *netuid >= 0).map(|netuid| netuid.to_string()),
            ..sources
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_nexus_auth_get_a_second_dash() {
        for (given, translated) in [
            ("tollgate run -net-uid 2 -listen-addr=:1", "tollgate run --net-uid 2 --listen-addr=:1"),
            ("tollgate run --net-uid=-1 -net-uid -1", "tollgate run --net-uid=-1 --net-uid -1"),
            ("tollgate generate -force-recreate -h", "tollgate generate --force-recreate -h"),
            ("tollgate run - -- -x", "tollgate run - -- -x"),
            ("tollgate serve -config", "tollgate serve -config"),
            ("tollgate -t run", "tollgate -t run"),
            ("tollgate", "tollgate"),
        ] {
            let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(with_two_dashes(words(given)), words(translated), "{given}");
        }
    }
}
