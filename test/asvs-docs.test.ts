/** What the documents promise of times, numbers and rules is what the code has (OWASP ASVS 5.0, the parts on documentation; `docs/asvs.md`). */
import { readFileSync } from 'node:fs'
import { ADMIN_ROUTES, LIMITS, ROLES, ROUTES } from '@sealpost/protocol'
import { describe, expect, test } from 'vitest'
import { REFRESH_GRACE_MS, REFRESH_LIFETIME_MS } from '../packages/server/src/http/auth/routes.ts'
import { KEY_SCHEDULE } from '../packages/server/src/http/auth/signing-keys.ts'
import { RATES, rateVariable, type RateRule } from '../packages/server/src/limits/rules.ts'

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8').replace(/\s+/g, ' ')
const protocol = read('docs/protocol.md')
const threats = read('docs/threat-model.md')
const MINUTE = 60_000
const DAY = 86_400_000

/** The number that stands where the sentence has `#`. */
function numberIn(text: string, sentence: string): number {
  const [before = '', after = ''] = sentence.split('#')
  const found = text.match(new RegExp(`${escaped(before)}([\\d,]+)${escaped(after)}`))?.[1]
  if (found === undefined) throw new Error(`no "${sentence}"`)
  return Number(found.replaceAll(',', ''))
}
const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

describe('the protocol page', () => {
  test.each([
    ['The access token is a JWT of # minutes', LIMITS.accessTokenSeconds / 60],
    ['A refresh token lasts # days', REFRESH_LIFETIME_MS / DAY],
    ['within # s it gives the same answer', REFRESH_GRACE_MS / 1_000],
    ['Keys go next → active → retired, # days each', KEY_SCHEDULE.active_ms / DAY],
    ['|iat − now| ≤ # s', LIMITS.assertionIatMs / 1_000],
    ['`rekey_required {reason, deadline_s: #}`', LIMITS.rekeyDeadlineMs / 1_000],
    ['ping every # s', LIMITS.pingMs / 1_000],
  ])('how long a session or token lives is written down: %s (7.1.1, 11.1.1)', (sentence, value) => {
    expect(numberIn(protocol, sentence)).toBe(value)
  })

  test('so is how many there may be at once, and what happens then (7.1.2)', () => {
    expect(protocol).toContain('One session per device, newest wins')
    expect(protocol).toMatch(/The fenced session is closed 4409/)
    expect(numberIn(protocol, '; # devices, 10,000 streams per user')).toBe(LIMITS.devicesPerUserMax)
    expect(numberIn(protocol, '50 unauthenticated and # sockets per address')).toBe(LIMITS.socketsPerAddressMax)
    expect(numberIn(protocol, '; # unauthenticated and')).toBe(LIMITS.unauthenticatedPerAddressMax)
    expect(protocol).toContain('four follow at most per device')
  })

  test.each([
    ['4,096', 'at most 4 KiB, # minutes;', LIMITS.pairingMs / MINUTE],
    ['gets', '; # gets a minute per mailbox', LIMITS.pairingGetsPerMinute],
    ['genesis', 'open|invite|closed` and # per hour and address', LIMITS.genesisPerAddressPerHour],
    ['entries', 'The devices of a user append # entries an hour together', LIMITS.logEntriesPerHour],
    ['statements', 'statement timeout # s', LIMITS.statementTimeoutMs / 1_000],
    ['locks', 'lock timeout # s', LIMITS.lockTimeoutMs / 1_000],
  ])('a bound against guessing and overload is written down as it is: %s (2.1.3, 6.1.1, 15.1.3)', (_, sentence, value) => {
    expect(numberIn(protocol, sentence)).toBe(value)
  })

  test('each way to prove oneself is written down with what it opens, and there is no other (6.1.3, 6.3.4)', () => {
    const credentials = new Set(Object.values(ROUTES).map(({ auth }) => auth))
    expect([...credentials].sort((a, b) => (a < b ? -1 : 1))).toEqual(['assertion', 'none', 'token'])
    const routes = read('docs/routes.md')
    for (const { method, path, auth } of Object.values(ROUTES))
      expect(routes).toContain(`| \`${method} ${path}\` | ${auth === 'none' ? '–' : auth} |`)
    for (const way of ['**Device assertion**', '**Tokens.**', '**Recovery**', '**Pairing.**', 'client_auth'])
      expect(protocol).toContain(way)
  })
})

test('so is each way of an admin: a key, a token of minutes, a role; and there is no other (6.1.3, 6.3.4, 8.1.1)', () => {
  const page = read('docs/operations/admin.md')
  expect([...new Set(Object.values(ADMIN_ROUTES).map(({ auth }) => auth))].toSorted()).toEqual(['assertion', 'none', 'token'])
  expect(page).toContain('An admin is an Ed25519 key.')
  expect(numberIn(page, 'is good for # minutes')).toBe(LIMITS.adminTokenSeconds / 60)
  for (const role of ROLES) expect(page).toMatch(new RegExp(`\\| ${role} \\| \\S`))
  expect(page).toContain('Device tokens are not valid on the admin listener, and admin tokens are not valid for devices.')
})

test('times in which a vulnerable package is mended, and what is asked before each release, are promised (15.1.1)', () => {
  const [policy = ''] = /\*\*Vulnerable packages\.\*\*[^*]*/.exec(read('CONTRIBUTING.md')) ?? []
  const days = ['critical', 'high', 'anything else'].map((grade) => numberIn(policy, `${grade} within # days`))
  expect(days).toEqual([3, 14, 90])
  for (const said of ['`npm audit --omit=dev`', 'before every release', 'exact version']) expect(policy).toContain(said)
})

test('the page of the configuration names each rate, for whom it counts and what it is unless it is set (2.1.3, 6.1.1, 15.1.3)', () => {
  const page = read('docs/configuration.md')
  for (const [rule, { per, points, says }] of Object.entries(RATES)) {
    const [row = ''] = page.match(new RegExp(`\\| \`${rateVariable(rule as RateRule)}\` \\|.*?(?=\\| \`[A-Z]|$)`)) ?? []
    expect([rule, row]).toEqual([rule, expect.stringContaining(`\`${points}\``)])
    expect([rule, row]).toEqual([rule, expect.stringContaining(`Limit of each ${per}: ${says}`)])
  }
})

test('the threat model names who holds which key, and what each opens (11.1.1, 14.1.1)', () => {
  for (const said of [
    "## The operator's secrets",
    '`secrets.json` in the data folder (0600)',
    '### Stolen recovery words',
    '### Stolen access token',
    '### Stolen refresh token',
    '## What the server sees',
    '### Copied home folder',
  ])
    expect(threats).toContain(said)
  expect(numberIn(threats, 'call REST as that device for at most # minutes')).toBe(LIMITS.accessTokenSeconds / 60)
  expect(protocol).toContain('No two devices share a private key')
})
