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
    chain::evm::Evm,
    model::hotkey::Hotkey,
    store::grant::{Signer, SignerKind},
};

/// Whom to ask.
pub struct WalletFacts {
    /// The node that knows what contracts say of signatures. None: accounts that are contracts cannot sign in.
    pub ethereum: Option<Evm>,
    /// Who knows which coldkey owns a hotkey.
    pub owners: Owners,
}

/// Who knows which coldkey owns a hotkey.
#[derive(Clone, Debug)]
pub enum Owners {
    /// Nobody: Bittensor wallets cannot sign in.
    Unavailable,
}

impl Owners {
    /// The coldkey that owns this account. None: nobody does, so it is no hotkey.
    fn of(&self, _account: Hotkey) -> Result<Option<Hotkey>, Error> {
        match self {
            Self::Unavailable => {
                Err(Error::unavailable("The chain cannot be asked about this wallet; try again later"))
            }
        }
    }
}

impl WalletFacts {
    /// What the wallet that signed is.
    ///
    /// # Errors
    /// 503.
    pub fn signer(&self, account: Account) -> Result<Signer, Error> {
        let text = account.text();
        let Account::Substrate(key) = account else {
            return Ok(Signer { account: text, kind: SignerKind::Evm, hotkey: None, coldkey: None });
        };
        Ok(match self.owners.of(key)? {
            Some(owner) => Signer {
                hotkey: Some(text.clone()),
                coldkey: Some(owner.to_string()),
                account: text,
                kind: SignerKind::Hotkey,
            },
            None => Signer { coldkey: Some(text.clone()), hotkey: None, account: text, kind: SignerKind::Coldkey },
        })
    }

    /// Whether all of it is true of the wallet.
    ///
    /// # Errors
    /// 403 if something is not, 503 if it cannot be found out.
    pub fn check(&self, scopes: &[Scope], _: &Signer) -> Result<(), Error> {
        match scopes.iter().find(|scope| *scope.kind() != Kind::OpenId) {
            None => Ok(()),
            Some(scope) => Err(Error::unavailable(format!("Scope {scope} cannot be verified now; try again later"))),
        }
    }
}
