/**
 * What an operator sets while the relay runs, in place of the configuration: who may sign up, what is logged, rates. It is in the
 * database, so that it holds on every node and after a restart; a node that did not set it itself follows within `FOLLOW_MS`.
 *
 * Invariant: what cannot be read or understood leaves in force what was.
 */
import type { Log } from '../telemetry/log.ts'
import { RATES, type RateRule } from '../limits/rules.ts'
import type { AdminStore } from '../ports/store.ts'
import { LOG_LEVELS, SIGNUP } from './variables.ts'

export type Signup = (typeof SIGNUP)[number]
export type LogLevel = (typeof LOG_LEVELS)[number]

type Values = { signup: Signup; log_level: LogLevel } & { [R in RateRule as `rate_${R}`]: number }
export type SettingName = keyof Values

export type Settings = {
  /** The value in force, and whether an operator set it. */
  get<N extends SettingName>(name: N): { value: Values[N]; by: 'configuration' | 'operator' }
  /** Null: as configured. On disk, and in force on this node, when it resolves. */
  set<N extends SettingName>(name: N, value: Values[N] | null): Promise<void>
  close(): Promise<void>
}

export type SettingsDeps = {
  store: Pick<AdminStore, 'readSettings' | 'setSetting'>
  configured: Values
  /** Called with what is in force, at the start and after each change. */
  apply<N extends SettingName>(name: N, value: Values[N]): void
  logger: Log
}

const FOLLOW_MS = 5_000

/** Reads once before it resolves. Throws what the store throws. */
export async function openSettings({ store, configured, apply, logger }: SettingsDeps): Promise<Settings> {
  const inForce: Values = { ...configured }
  let ruled: ReadonlySet<string> = new Set()

  let following: Promise<void> = Promise.resolve()
  /** One after another: what was read before does not come after what was read later. */
  const follow = (): Promise<void> => (following = following.catch(() => {}).then(read))

  async function read(): Promise<void> {
    const rows = await store.readSettings()
    const values = new Map(rows.flatMap(({ name, value }) => (isSetting(configured, name) ? [[name, parse(name, value)] as const] : [])))
    ruled = new Set([...values].flatMap(([name, value]) => (value === null ? [] : [name])))
    for (const name of Object.keys(configured) as SettingName[]) put(name, values.get(name) ?? configured[name])
  }
  function put<N extends SettingName>(name: N, value: Values[N] | string | number): void {
    if (inForce[name] === value) return
    inForce[name] = value as Values[N]
    apply(name, inForce[name])
  }

  for (const name of Object.keys(configured) as SettingName[]) apply(name, configured[name])
  await follow()
  const timer = setInterval(() => {
    follow().catch((error: unknown) => logger.warn({ err: error }, 'the settings were not read'))
  }, FOLLOW_MS)
  timer.unref()

  return {
    get: (name) => ({ value: inForce[name], by: ruled.has(name) ? 'operator' : 'configuration' }),
    async set(name, value) {
      await store.setSetting(name, value === null ? null : JSON.stringify(value))
      await follow()
    },
    async close() {
      clearInterval(timer)
      await following.catch(() => {})
    },
  }
}

function isSetting(configured: Values, name: string): name is SettingName {
  return Object.hasOwn(configured, name)
}

/** Null: not a value that this version knows. */
function parse(name: SettingName, text: string): string | number | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  if (name === 'signup') return SIGNUP.find((known) => known === value) ?? null
  if (name === 'log_level') return LOG_LEVELS.find((known) => known === value) ?? null
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : null
}

/** The settings of a configuration. */
export function settingsOf(config: { signup: Signup; log_level: LogLevel; rates: Record<RateRule, number> }): Values {
  const rates = Object.keys(RATES).map((rule) => [`rate_${rule}`, config.rates[rule as RateRule]])
  return { signup: config.signup, log_level: config.log_level, ...Object.fromEntries(rates) } as Values
}
