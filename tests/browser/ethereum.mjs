// An Ethereum account, apart from Bittensor's: whoever needs no other starts in half the time.

import { privateKeyToAccount } from "viem/accounts";

// The second key that development chains give ether to.
export const carol = privateKeyToAccount("0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");
