//! Signatures of accounts that are contracts: ERC-1271, and ERC-6492 for those that are not deployed yet.

use alloy::{
    primitives::{Address, Bytes, FixedBytes},
    sol,
    sol_types::{SolCall as _, SolValue as _},
};

use super::Evm;
use crate::{
    chain::fault::{Failed, Fault},
    model::address::EvmAddress,
};

sol! {
    /// ERC-1271.
    interface Erc1271 {
        /// Answers with this function's own selector if the contract takes the signature for its own.
        function isValidSignature(bytes32 digest, bytes signature) external view returns (bytes4);
    }
}

/// ERC-6492: a signature with this at its end says before it how the account's contract would be deployed.
const UNDEPLOYED: [u8; 32] = [
    0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64,
    0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92,
];

/// Longer ones are nobody's signature: what deploys a wallet and many owners' signatures fit well into it. It is also
/// what a node may be made to carry for a stranger.
pub const LONGEST_SIGNATURE: usize = 16 * 1024;

impl Evm {
    /// Whether the contract at `account`, deployed or about to be, takes a signature of `digest` for its own. An account
    /// that is no contract takes none.
    ///
    /// # Errors
    /// When the node could not be asked: then nobody knows.
    pub async fn accepts_signature(
        &self,
        account: EvmAddress,
        digest: [u8; 32],
        signature: &[u8],
    ) -> Result<bool, Failed> {
        if signature.len() > LONGEST_SIGNATURE {
            return Ok(false);
        }
        let call = self.calls.begin();
        let answer = match signature.strip_suffix(&UNDEPLOYED) {
            None => self.call(Some(account), question(digest, signature)).await,
            Some(wrapped) => match <(Address, Bytes, Bytes)>::abi_decode_params(wrapped) {
                Err(_) => Ok(Vec::new()),
                Ok((factory, deploy, inner)) => {
                    self.call(None, deploy_and_ask(factory, &deploy, account, &question(digest, &inner))).await
                }
            },
        };
        // A contract that has no such function, or throws at a signature it does not like, has answered: no.
        let refused = matches!(&answer, Err(failed) if failed.fault == Fault::Reverted);
        call.end(answer.as_ref().err().filter(|_| !refused));
        if refused { Ok(false) } else { answer.map(|answer| is_yes(&answer)) }
    }
}

fn question(digest: [u8; 32], signature: &[u8]) -> Vec<u8> {
    let (digest, signature) = (FixedBytes(digest), signature.to_vec().into());
    Erc1271::isValidSignatureCall { digest, signature }.abi_encode()
}

/// The selector, and nothing behind it.
fn is_yes(answer: &[u8]) -> bool {
    answer.len() == 32
        && answer
            .strip_prefix(&Erc1271::isValidSignatureCall::SELECTOR)
            .is_some_and(|rest| rest.iter().all(|b| *b == 0))
}

/// Code for a call without a recipient, which a node runs as if a contract were to be created, and whose answer it gives
/// back: calls the factory, whatever comes of it, and then asks the account. Nothing of it stays.
///
/// ```text
/// push4 F  push2 C    push1 0  codecopy                                             what to tell the factory
/// push1 0  push1 0  push4 F  push1 0  push1 0  push20 factory  gas  call  pop
/// push4 S  push4 C+F  push1 0  codecopy                                             the question
/// push1 20 push4 R  push4 S  push1 0  push20 account  gas  staticcall
/// push4 R  mload  mul  push1 0  mstore  push1 20  push1 0  return                   nothing, if the account threw
/// ```
///
/// C is the length of this code, F and S are those of what follows it. The answer is written to R, behind both, where
/// there is nothing yet: an account that answers less than a word has not said yes.
fn deploy_and_ask(factory: Address, deploy: &[u8], account: EvmAddress, question: &[u8]) -> Vec<u8> {
    const CODE_LENGTH: u32 = 115;
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (deploy_length, question_length) = (length(deploy), length(question));
    let answer_at = deploy_length.max(question_length).div_ceil(32).saturating_mul(32);
    let mut code = Vec::new();
    let push4 = |code: &mut Vec<u8>, value: u32| {
        code.push(0x63);
        code.extend(value.to_be_bytes());
    };
    push4(&mut code, deploy_length);
    push4(&mut code, CODE_LENGTH);
    code.extend([0x60, 0, 0x39, 0x60, 0, 0x60, 0]);
    push4(&mut code, deploy_length);
    code.extend([0x60, 0, 0x60, 0, 0x73]);
    code.extend(factory.as_slice());
    code.extend([0x5a, 0xf1, 0x50]);
    push4(&mut code, question_length);
    push4(&mut code, CODE_LENGTH.saturating_add(deploy_length));
    code.extend([0x60, 0, 0x39, 0x60, 0x20]);
    push4(&mut code, answer_at);
    push4(&mut code, question_length);
    code.extend([0x60, 0, 0x73]);
    code.extend(account.0);
    code.extend([0x5a, 0xfa]);
    push4(&mut code, answer_at);
    code.extend([0x51, 0x02, 0x60, 0, 0x52, 0x60, 0x20, 0x60, 0, 0xf3]);
    debug_assert_eq!(length(&code), CODE_LENGTH, "the code is as long as it says");
    code.extend(deploy);
    code.extend(question);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_selector_alone_in_a_word_is_a_yes() {
        let yes = [[0x16, 0x26, 0xba, 0x7e].as_slice(), &[0; 28]].concat();
        assert!(is_yes(&yes));
        for no in [&yes[..31], &[yes.as_slice(), &[0]].concat(), &yes[..4], &[], &[0; 32], &[0xff; 32]] {
            assert!(!is_yes(no), "{no:?}");
        }
        let mut more = yes;
        more[31] = 1;
        assert!(!is_yes(&more));
    }

    #[test]
    fn the_code_knows_its_length() {
        let code = deploy_and_ask(Address::ZERO, b"deploy", EvmAddress([1; 20]), b"question");
        assert_eq!(code.len(), 115 + 6 + 8);
        assert!(code.ends_with(b"deployquestion"));
    }
}
