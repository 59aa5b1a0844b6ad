/** What a device asks about its account over REST (protocol.md §10): a token, everything that is held, the end of it all. */
import { type Bytes, createAssertion, type ErrorCode, SealpostError, toBase64url } from '@sealpost/protocol'
import { type Contact, FIRST_TRIES_MS, openContact } from './contact.ts'
import type { Member } from '../home/member.ts'
import type { Home } from '../ports.ts'
import { orAborted, throwIfAborted, until, within } from '../signal.ts'

/** For the connection to find out whether there still is an account. */
const VERDICT_MS = 20_000
/** With these the account may be gone: by this call, whose answer was lost, or by one before. */
const UNSURE: ReadonlySet<ErrorCode> = new Set(['unauthorized', 'unreachable', 'timeout', 'unavailable', 'internal'])

export async function createAccessToken(
  home: Home,
  member: Member,
  signal?: AbortSignal,
): Promise<{ access_token: string; expires_in: number }> {
  const { contact, assert } = openCalls(home, member)
  return contact.again(home.clock.mono() + FIRST_TRIES_MS, signal, async () => contact.rest.createToken(await assert('token'), signal))
}

export async function* exportAccount(home: Home, member: Member, signal?: AbortSignal): AsyncGenerator<Bytes> {
  const { contact } = openCalls(home, member)
  const { access_token } = await createAccessToken(home, member, signal)
  yield* await contact.rest.exportUser(access_token, signal)
}

/** Rows per table; null: the account is gone, and whoever had the answer with them has lost it. What throws may be called again. */
export async function deleteAccount(home: Home, member: Member, signal?: AbortSignal): Promise<Record<string, number> | null> {
  const { contact, assert } = openCalls(home, member)
  // a refusal of the time is corrected, but nothing else is tried twice: the first try may have deleted it
  await contact.again(home.clock.mono() + FIRST_TRIES_MS, signal, () => contact.rest.readServer(signal))
  try {
    return await contact.again(home.clock.mono(), signal, async () => contact.rest.deleteUser(await assert('delete-account'), signal))
  } catch (error) {
    if (error instanceof SealpostError && UNSURE.has(error.code) && (await isGone(home, member, signal))) return null
    throw error
  }
}

/** As the connection hears, or finds out by its genesis when it is refused (repair.ts). A home without one does not know. */
async function isGone(home: Home, member: Member, signal: AbortSignal | undefined): Promise<boolean> {
  const verdict = (): ErrorCode | undefined => member.status.terminal?.code
  const late = (): SealpostError => new SealpostError('timeout', 'whether the account is gone is not known')
  const isDecided = (): boolean => verdict() !== undefined || member.alone
  await until(member.changed, isDecided, (met) => within(home.clock, VERDICT_MS, orAborted(met, signal), late)).catch(() => undefined)
  throwIfAborted(signal)
  return verdict() === 'account_gone'
}

function openCalls(home: Home, member: Member): { contact: Contact; assert(purpose: string): ReturnType<typeof createAssertion> } {
  const { user_id, device_id: signer, server_url, server_key, sign_seed } = member.identity
  const contact = openContact(home, server_url, member.time)
  const assert = (purpose: string) =>
    createAssertion(home.crypto, sign_seed, { purpose, aud: toBase64url(server_key), user_id, signer }, member.time.now())
  return { contact, assert }
}
