/** Accounts of the load, made over REST as any device makes them, with boxes that are random bytes. */
import { createAssertion, fromBase64url, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { makeAccount, makeDevice, makeEntry, type TestAccount, type TestChange, wire } from '@sealpost/testing/clients/store-accounts'
import type { DeviceIdentity } from './device.ts'
import type { Relay } from './relays.ts'

const TOGETHER = 8

/** Identities of the devices, user after user. */
export async function openAccounts(relay: Relay, users: number, devices: number): Promise<DeviceIdentity[]> {
  const identities: DeviceIdentity[][] = []
  let next = 0
  const work = async (): Promise<void> => {
    for (let user = next++; user < users; user = next++) identities[user] = identitiesOf(user, await openAccount(relay, devices))
  }
  await Promise.all(Array.from({ length: TOGETHER }, work))
  return identities.flat()
}

async function openAccount(relay: Relay, devices: number): Promise<TestAccount> {
  const account = makeAccount()
  await post(relay, account, { type: 'genesis', device: makeDevice() })
  while (account.devices.length < devices) await post(relay, account, { type: 'add_device', device: makeDevice() })
  return account
}

async function post({ nodes, server_key }: Relay, account: TestAccount, change: Extract<TestChange, { device: unknown }>): Promise<void> {
  const [signer] = account.devices
  const [id, seed] = signer === undefined ? ['root', account.root_seed] : [signer.device_id, signer.sign_seed]
  const claims = { purpose: 'log', aud: server_key, user_id: account.user_id, signer: id }
  const proof = await createAssertion(nodeCrypto, seed, claims, Date.now())
  const answer = await fetch(`${nodes[0]?.url}/api/log`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...wire(makeEntry(account, change)), proof }),
  })
  if (answer.status !== 200) throw new Error(`an entry was refused: ${answer.status} ${await answer.text()}`)
  const { log_seq, log_head } = (await answer.json()) as { log_seq: number; log_head: string }
  account.log_seq = log_seq
  account.log_head = fromBase64url(log_head, 32)
  account.devices.push(change.device)
}

function identitiesOf(user: number, { user_id, devices, log_seq, log_head }: TestAccount): DeviceIdentity[] {
  return devices.map(({ device_id, sign_seed }) => ({
    user,
    user_id,
    device_id,
    sign_seed: toBase64url(sign_seed),
    log_seq,
    log_head: toBase64url(log_head ?? new Uint8Array()),
  }))
}
