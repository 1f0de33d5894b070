//! What the chains say of a wallet: whose hotkey it is, and whether what is asked for is true of it.
//!
//! Three answers: yes, no, and *it cannot be found out*, which is 503 and never taken for one of the others. Whoever
//! knows more of the chain is put in here; no endpoint asks it by itself.

use super::{
    Error,
    account::Account,
    scope::{Kind, Scope},
};
use crate::{
    chain::{cache::Unanswered, evm::Evm, subtensor::owners::Owners},
    model::hotkey::Hotkey,
    store::grant::{Signer, SignerKind},
};

/// Whom to ask.
pub struct WalletFacts {
    /// The node that knows what contracts say of signatures. None: accounts that are contracts cannot sign in.
    pub ethereum: Option<Evm>,
    /// Who knows which coldkey owns a hotkey. None: Bittensor wallets cannot sign in.
    pub owners: Option<Owners>,
}

/// How we come to ask about a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    /// It signs in. Anybody can make a wallet, so questions about such are limited.
    Stranger,
    /// It has signed in before.
    Known,
}

impl WalletFacts {
    /// What the wallet that signed is.
    ///
    /// # Errors
    /// 503.
    pub async fn signer(&self, account: Account, acquaintance: Acquaintance) -> Result<Signer, Error> {
        let text = account.text();
        let Account::Substrate(key) = account else {
            return Ok(Signer { account: text, kind: SignerKind::Evm, hotkey: None, coldkey: None });
        };
        Ok(match self.owner(key, acquaintance).await? {
            Some(owner) => Signer {
                hotkey: Some(text.clone()),
                coldkey: Some(owner.to_string()),
                account: text,
                kind: SignerKind::Hotkey,
            },
            None => Signer { coldkey: Some(text.clone()), hotkey: None, account: text, kind: SignerKind::Coldkey },
        })
    }

    /// The coldkey that owns this account. None: nobody does, so it is no hotkey.
    async fn owner(&self, account: Hotkey, acquaintance: Acquaintance) -> Result<Option<Hotkey>, Error> {
        const UNKNOWN: &str = "The chain cannot be asked about this wallet; try again later";
        let owners = self.owners.as_ref().ok_or_else(|| Error::unavailable(UNKNOWN))?;
        let answer = match acquaintance {
            Acquaintance::Stranger => owners.of_stranger(account).await,
            Acquaintance::Known => owners.of(account).await,
        };
        answer.map_err(|unanswered| match unanswered {
            Unanswered::Unavailable(_) => Error::unavailable(UNKNOWN),
            Unanswered::Limited { .. } => Error::unavailable("Too many new wallets are signing in; try again"),
        })
    }

    /// Whether all of it is true of the wallet.
    ///
    /// # Errors
    /// 403 if something is not, 503 if it cannot be found out.
    pub fn check(&self, scopes: &[Scope], signer: &Signer) -> Result<(), Error> {
        let wrong = |scope: &&Scope| matches!(scope.kind(), Kind::Signer(kind) if *kind != signer.kind);
        if let Some(scope) = scopes.iter().find(wrong) {
            let text = format!("Scope verification failed: {scope}; the wallet signed with a {}", signer.kind.as_str());
            return Err(Error::forbidden(text));
        }
        if let Some(scope) =
            scopes.iter().find(|scope| scope.kind().netuid().is_some_and(|netuid| netuid.number().is_none()))
        {
            return Err(Error::forbidden(format!("Scope verification failed: {scope}; there is no such subnet")));
        }
        match scopes.iter().find(|scope| !matches!(scope.kind(), Kind::OpenId | Kind::Signer(_))) {
            None => Ok(()),
            Some(scope) => Err(Error::unavailable(format!("Scope {scope} cannot be verified now; try again later"))),
        }
    }
}
