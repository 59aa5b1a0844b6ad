/** An assertion of a device of a test account. */
import { createAssertion, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { TestAccount } from './accounts.ts'

export function assertOf(account: TestAccount, server_key: Uint8Array, purpose: string, device = 0): Promise<SignedObject> {
  const signer = account.devices[device]
  if (signer === undefined) throw new Error(`the account has no device ${device}`)
  const claims = { purpose, aud: toBase64url(server_key), user_id: account.user_id, signer: signer.device_id }
  return createAssertion(nodeCrypto, signer.sign_seed, claims, Date.now())
}
