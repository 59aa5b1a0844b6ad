/** What a device asks about its account over REST (protocol.md §10): a token, everything that is held, the end of it all. */
import { type Bytes, createAssertion, toBase64url } from '@sealpost/protocol'
import { type Contact, FIRST_TRIES_MS, openContact } from './contact.ts'
import type { Member } from './member.ts'
import type { Home, Identity } from './ports.ts'

export async function createAccessToken(
  home: Home,
  identity: Identity,
  member: Member,
  signal?: AbortSignal,
): Promise<{ access_token: string; expires_in: number }> {
  const { contact, assert } = openCalls(home, identity, member)
  return contact.again(home.clock.mono() + FIRST_TRIES_MS, signal, async () => contact.rest.createToken(await assert('token'), signal))
}

export async function* exportAccount(home: Home, identity: Identity, member: Member, signal?: AbortSignal): AsyncGenerator<Bytes> {
  const { contact } = openCalls(home, identity, member)
  const { access_token } = await createAccessToken(home, identity, member, signal)
  yield* await contact.rest.exportUser(access_token, signal)
}

/** Not tried again by itself: when the answer was lost, the next try is refused as unauthorized. */
export async function deleteAccount(home: Home, identity: Identity, member: Member, signal?: AbortSignal): Promise<Record<string, number>> {
  const { contact, assert } = openCalls(home, identity, member)
  await contact.again(home.clock.mono() + FIRST_TRIES_MS, signal, () => contact.rest.readServer(signal))
  return contact.rest.deleteUser(await assert('delete-account'), signal)
}

function openCalls(
  home: Home,
  identity: Identity,
  member: Member,
): { contact: Contact; assert(purpose: string): ReturnType<typeof createAssertion> } {
  const contact = openContact(home, identity.server_url, () => member.status.clock_offset)
  const { user_id, device_id: signer, server_key, sign_seed } = identity
  const assert = (purpose: string) =>
    createAssertion(home.crypto, sign_seed, { purpose, aud: toBase64url(server_key), user_id, signer }, contact.now())
  return { contact, assert }
}
