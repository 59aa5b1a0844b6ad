/**
 * What `sealpost doctor` does: looks at a deployment, beside the running relay, and judges it by THE list of checks. It changes nothing:
 * no file is made, nothing is written to the database, nothing is started. Everything is looked at at the same time, and ends within
 * `LOOK_MS_MAX`.
 */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { SealpostError } from '@sealpost/protocol'
import { type Config, readConfig } from '../config/config.ts'
import type { ConfigFlags } from '../config/variables.ts'
import type { Check, Verdict } from './check.ts'
import { DATABASE_CHECKS } from './database-checks.ts'
import type { Database, Facts, Folder, SecretsFile, Seen } from './facts.ts'
import { lookAtDatabase } from './look-database.ts'
import { lookAtFolder, lookAtMachine, lookAtSecrets } from './look-machine.ts'
import { lookAtAdminPort, lookAtPort, lookAtPublicUrl, type Trust } from './look-network.ts'
import { lookAtRedis } from './look-redis.ts'
import { MACHINE_CHECKS } from './machine-checks.ts'
import { NETWORK_CHECKS } from './network-checks.ts'
import { REDIS_CHECKS } from './redis-checks.ts'

/** Everything that is looked at. */
export const CHECKS: readonly Check[] = [...MACHINE_CHECKS, ...DATABASE_CHECKS, ...REDIS_CHECKS, ...NETWORK_CHECKS]

export type Finding = { name: string } & Verdict

export type DoctorOptions = Trust & {
  env?: NodeJS.ProcessEnv
  flags?: ConfigFlags
  /** In place of SEALPOST_PUBLIC_URL. */
  url?: string | undefined
  /** The clock of this machine. */
  now?: () => number
}

const LOOK_MS_MAX = 5_000
const LATE = `no answer within ${LOOK_MS_MAX / 1000} s`
const NO_CONFIG = { unseen: 'the configuration is not understood' } as const

const ANY_PORT = { unseen: 'it may be any: the configured one is 0' } as const

/** One finding for each check, in their order. Throws nothing that is wrong with the deployment. */
export async function diagnose(options: DoctorOptions = {}): Promise<Finding[]> {
  const facts = await lookAtAll(options)
  return CHECKS.map(({ name, run }) => ({ name, ...run(facts) }))
}

async function lookAtAll({ env = process.env, flags, url, now = Date.now, ca }: DoctorOptions): Promise<Facts> {
  const machine = await lookAtMachine()
  // the file of the variable would be a second value
  const given = url === undefined ? env : { ...env, SEALPOST_PUBLIC_URL: url, SEALPOST_PUBLIC_URL_FILE: '' }
  const config = tryConfig(given, flags)
  if (Array.isArray(config)) {
    const none = { config: NO_CONFIG, folder: NO_CONFIG, secrets: NO_CONFIG, database: NO_CONFIG, redis: NO_CONFIG, port: NO_CONFIG }
    return { ...none, admin_port: NO_CONFIG, public_url: NO_CONFIG, mistakes: config, now: now(), machine }
  }
  const { data_dir, database_url, public_url, admin, redis: servers } = config
  const path = resolve(data_dir)
  const [folder, secrets, database, redis, port, admin_port, public_] = await Promise.all([
    inTime<Folder>(() => lookAtFolder(path), { seen: { path, is: 'unusable', reason: LATE } }),
    inTime<SecretsFile>(() => lookAtSecrets(secretsPath(config)), { seen: { path: secretsPath(config), is: 'unreadable' } }),
    inTime<Database>((signal) => lookAtDatabase(config, now, signal), {
      seen: { is: 'unreachable', external: database_url !== null, reason: LATE, advice: 'check that it runs, and DATABASE_URL' },
    }),
    servers === null
      ? { unseen: 'there is none: REDIS_URL is not set' }
      : inTime((signal) => lookAtRedis(servers, signal), { unseen: LATE }),
    config.port === 0 ? ANY_PORT : inTime(() => lookAtPort(config), { unseen: LATE }),
    admin === null
      ? { unseen: 'there is none: SEALPOST_ADMIN is off' }
      : admin.port === 0
        ? ANY_PORT
        : inTime(() => lookAtAdminPort(admin), { unseen: LATE }),
    public_url === null
      ? { unseen: 'there is none: neither SEALPOST_PUBLIC_URL nor --url' }
      : inTime(() => lookAtPublicUrl(public_url, { ca }), { unseen: LATE }),
  ])
  return {
    config: { seen: config },
    mistakes: [],
    now: now(),
    machine,
    folder,
    secrets,
    database,
    redis,
    port,
    admin_port,
    public_url: public_,
  }
}

function secretsPath({ secrets_file, data_dir }: Config): string {
  return resolve(secrets_file ?? join(data_dir, 'secrets.json'))
}

/** The configuration, or what is wrong with it. */
function tryConfig(env: NodeJS.ProcessEnv, flags: ConfigFlags | undefined): Config | string[] {
  try {
    return readConfig(env, flags, (path) => readFileSync(path, 'utf8'))
  } catch (error) {
    if (!(error instanceof SealpostError && error.code === 'invalid_config')) throw error
    return error.message
      .split('\n')
      .slice(1)
      .map((line) => line.trim())
  }
}

/** `late` when it takes too long: then it is given up, as far as it listens. */
async function inTime<T>(look: (signal: AbortSignal) => Promise<T>, late: Seen<T>): Promise<Seen<T>> {
  const giveUp = new AbortController()
  const { promise, resolve } = Promise.withResolvers<Seen<T>>()
  const timer = setTimeout(() => {
    resolve(late)
    giveUp.abort()
  }, LOOK_MS_MAX)
  try {
    return await Promise.race([look(giveUp.signal).then((seen) => ({ seen })), promise])
  } finally {
    clearTimeout(timer)
  }
}
