/** Assertions of the devices of a test account, and what the routes that ask for one take. */
import { createAssertion, type RouteName, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { makeEntry, type TestAccount, wire } from './store-accounts.ts'

export const PURPOSES = {
  append_log: 'log',
  read_log: 'log-read',
  create_token: 'token',
  refresh_token: 'refresh',
  delete_user: 'delete-account',
  take_session: 'session',
} as const satisfies Partial<Record<RouteName, string>>
export type Asserted = keyof typeof PURPOSES

/** The assertion stands in the body, but for an entry of the log, which has it as its proof. */
export function bodyWith(name: Asserted, account: TestAccount, signed: SignedObject, refresh_token = 'AAAA'): object {
  if (name === 'append_log') return { ...wire(makeEntry(account, { type: 'rotate_keys' })), proof: signed }
  return name === 'refresh_token' ? { ...signed, refresh_token } : signed
}

export function assertOf(account: TestAccount, server_key: Uint8Array, purpose: string, device = 0): Promise<SignedObject> {
  const signer = account.devices[device]
  if (signer === undefined) throw new Error(`the account has no device ${device}`)
  const claims = { purpose, aud: toBase64url(server_key), user_id: account.user_id, signer: signer.device_id }
  return createAssertion(nodeCrypto, signer.sign_seed, claims, Date.now())
}
