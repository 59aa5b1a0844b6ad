/**
 * THE list of `sealpost admin` commands that ask a running relay: what each takes, which route it asks, and what is shown of the answer. With
 * `--json` the answer itself is printed, a list one object a line.
 */
import type { AdminRouteName } from '@sealpost/protocol'
import { UsageError } from '../exit-codes.ts'
import { parseCount, parseDuration } from '../duration.ts'
import type { AdminAsk } from './admin-client.ts'

type Options = Readonly<Record<string, string | boolean | undefined>>
// oxlint-disable-next-line typescript/no-explicit-any -- a row of an answer, as the contract of its route says
type Row = any

export type AdminCommand = {
  /** As commander takes it: `suspend <user>`. */
  usage: string
  says: string
  options?: readonly (readonly [flags: string, says: string])[]
  route: AdminRouteName | ((options: Options) => AdminRouteName)
  /** Asked instead of `route` when there is something to set. */
  sets?: AdminRouteName
  ask?(args: readonly string[], options: Options): AdminAsk
  /** A list: the member that holds the rows, all pages of it; and the columns of the table. */
  list?: { member: string; paged?: true; columns: readonly (readonly [title: string, cell: (row: Row, now_ms: number) => unknown])[] }
  /** Asks before it does it. */
  confirm?(args: readonly string[]): string
  /** What is said to a person when it was done; otherwise the answer is shown as it is. */
  done?: string
}

const REASON = ['--reason <text>', 'why; it is written into the audit log'] as const
const DEVICE = ['--device <id>', 'this device alone'] as const
const LIMIT = ['--count <n>', 'at most so many'] as const

/** UTC, to the second. */
export const time = (ms: unknown): string => (typeof ms === 'number' ? new Date(ms).toISOString().slice(0, 19).replace('T', ' ') : '-')
export const text = (value: string | boolean | undefined): string | undefined => (typeof value === 'string' ? value : undefined)

/** Of a user or, with `--device`, of one of its devices. */
const ofUserOrDevice = ([user_id = '']: readonly string[], { device, reason }: Options): AdminAsk => ({
  params: { user_id, ...(typeof device === 'string' ? { device_id: device } : {}) },
  body: typeof reason === 'string' ? { reason } : {},
})
const either =
  (user: AdminRouteName, device: AdminRouteName) =>
  (options: Options): AdminRouteName =>
    options.device === undefined ? user : device

/** `configured` takes a setting away. */
const setting = (given: string | undefined): string | null | undefined => (given === 'configured' ? null : given)

function whole(given: string | undefined, what: string): number | null {
  if (given === 'configured') return null
  const value = Number(given)
  if (given === undefined || !/^\d{1,16}$/.test(given) || !Number.isSafeInteger(value))
    throw new UsageError(`${what} is a whole number, or: configured`, 'sealpost admin --help shows what is possible')
  return value
}

export const ADMIN_COMMANDS: readonly AdminCommand[] = [
  { usage: 'self', says: 'who this key is, and in which role', route: 'read_self' },
  { usage: 'status', says: 'figures of the relay and of this node', route: 'read_figures' },
  {
    usage: 'nodes',
    says: 'the processes that serve the relay',
    route: 'list_nodes',
    list: {
      member: 'nodes',
      columns: [
        ['NODE', (row) => row.node_no],
        ['HOST', (row) => row.figures.host],
        ['PID', (row) => row.figures.pid],
        ['STATE', ({ live, figures }) => (!live ? 'gone' : figures.draining ? 'draining' : figures.shedding ? 'overloaded' : 'live')],
        ['HINTS', (row) => row.figures.reach],
        ['SESSIONS', (row) => row.figures.sessions],
        ['USERS', (row) => row.figures.subscriptions],
        ['RSS MIB', (row) => Math.round(row.figures.rss_bytes / 1_048_576)],
        ['SINCE', (row) => time(row.figures.started_at)],
        ['VERSION', (row) => row.figures.version],
      ],
    },
  },
  { usage: 'version', says: 'versions', route: 'read_version' },
  { usage: 'database', says: 'the database and the pools of this node', route: 'read_database' },
  {
    usage: 'config',
    says: 'every variable with its value in force',
    route: 'read_config',
    list: {
      member: 'variables',
      columns: [
        ['VARIABLE', (row) => row.name],
        ['VALUE', (row) => (row.secret ? (row.is_set ? '(set)' : '(not set)') : (row.value ?? '-'))],
        ['', (row) => (row.is_set ? '' : 'default')],
      ],
    },
  },

  {
    usage: 'users',
    says: 'accounts, oldest first',
    options: [['--state <state>', 'active or suspended'], LIMIT],
    route: 'list_users',
    ask: (_, { state }) => ({ query: { state: text(state) } }),
    list: {
      member: 'users',
      paged: true,
      columns: [
        ['USER', (row) => row.user_id],
        ['CREATED', (row) => time(row.created_at)],
        ['ACTIVE', (row) => time(row.last_activity)],
        ['DEVICES', (row) => row.devices],
        ['EVENTS', (row) => row.events],
        ['BYTES', (row) => row.stored_bytes],
        ['STATE', (row) => (row.suspended_at === null ? 'active' : `suspended ${time(row.suspended_at)}`)],
      ],
    },
  },
  { usage: 'user <user>', says: 'one account', route: 'read_user', ask: ([user_id = '']) => ({ params: { user_id } }) },
  {
    usage: 'devices <user>',
    says: 'the devices of an account',
    route: 'list_user_devices',
    ask: ([user_id = '']) => ({ params: { user_id } }),
    list: {
      member: 'devices',
      columns: [
        ['DEVICE', (row) => row.device_id],
        ['NAME', (row) => row.name],
        ['TYPE', (row) => row.device_type],
        ['SEEN', (row) => time(row.last_seen)],
        ['SESSION', (row) => (row.has_session ? 'yes' : 'no')],
        ['STATE', (row) => row.state],
      ],
    },
  },
  {
    usage: 'suspend <user>',
    says: 'shut an account or a device out until it is resumed; its devices are told so',
    options: [DEVICE, REASON],
    route: either('suspend_user', 'suspend_device'),
    ask: ofUserOrDevice,
    done: 'suspended',
  },
  {
    usage: 'resume <user>',
    says: 'end a suspension',
    options: [DEVICE, REASON],
    route: either('resume_user', 'resume_device'),
    ask: ofUserOrDevice,
    done: 'resumed',
  },
  {
    usage: 'disconnect <user>',
    says: 'end the sessions of an account or a device; they come back by themselves',
    options: [DEVICE, REASON],
    route: either('disconnect_user', 'disconnect_device'),
    ask: ofUserOrDevice,
    done: 'disconnected',
  },
  {
    usage: 'quota <user> <bytes> <streams> <devices>',
    says: 'quotas of one account; configured = as in the configuration',
    route: 'set_user_quota',
    ask: ([user_id = '', bytes, streams, devices]) => ({
      params: { user_id },
      body: { bytes: whole(bytes, 'bytes'), streams: whole(streams, 'streams'), devices: whole(devices, 'devices') },
    }),
    done: 'the quotas are in force',
  },
  {
    usage: 'delete-user <user>',
    says: 'delete an account for ever',
    options: [['--yes', 'do not ask']],
    route: 'delete_user',
    ask: ([user_id = '']) => ({ params: { user_id } }),
    confirm: ([user]) => `delete the account ${user} with all that belongs to it, for ever?`,
  },
  {
    usage: 'sessions',
    says: 'open sessions of this node',
    options: [['--user <user>', 'of this account'], LIMIT],
    route: 'list_sessions',
    ask: (_, { user }) => ({ query: { user_id: text(user) } }),
    list: {
      member: 'sessions',
      paged: true,
      columns: [
        ['SESSION', (row) => row.session_id],
        ['USER', (row) => row.user_id],
        ['DEVICE', (row) => row.device_id],
        ['ROLE', (row) => row.role],
        ['SINCE', (row) => time(row.opened_at)],
        ['POSITION', (row) => row.position],
      ],
    },
  },

  {
    usage: 'signup [mode]',
    says: 'who may create accounts; open, invite, closed, or configured',
    route: 'read_signup',
    sets: 'set_signup',
    ask: ([mode]) => (mode === undefined ? {} : { body: { signup: setting(mode) } }),
  },
  {
    usage: 'log-level [level]',
    says: 'what is logged; silent, error, warn, info, debug, or configured',
    route: 'read_log_level',
    sets: 'set_log_level',
    ask: ([level]) => (level === undefined ? {} : { body: { log_level: setting(level) } }),
  },
  {
    usage: 'limits',
    says: 'rates in force',
    route: 'list_limits',
    list: {
      member: 'limits',
      columns: [
        ['LIMIT', (row) => row.rule],
        ['OF EACH', (row) => row.per],
        ['POINTS', (row) => row.points],
        ['SECONDS', (row) => row.seconds],
        ['BY', (row) => row.by],
        ['WHAT', (row) => row.says],
      ],
    },
  },
  {
    usage: 'limit <limit> <points>',
    says: 'set a rate; configured = as in the configuration',
    route: 'set_limit',
    ask: ([rule = '', points]) => ({ params: { rule }, body: { points: whole(points, 'points') } }),
    done: 'the limit is in force',
  },
  {
    usage: 'invites',
    says: 'invites, newest first',
    options: [LIMIT],
    route: 'list_invites',
    list: {
      member: 'invites',
      paged: true,
      columns: [
        ['INVITE', (row) => row.invite_id],
        ['UNTIL', (row) => time(row.expires_at)],
        ['USES', (row) => `${row.uses} of ${row.uses_max}`],
        [
          'STATE',
          (row, now_ms) =>
            row.revoked_at !== null ? 'revoked' : row.uses === row.uses_max ? 'used up' : row.expires_at < now_ms ? 'expired' : 'open',
        ],
        ['NOTE', (row) => row.note ?? ''],
      ],
    },
  },
  {
    usage: 'invite',
    says: 'make an invite and show its code, this once: sealpost init --invite CODE',
    options: [
      ['--uses <n>', 'accounts it is good for (default 1)'],
      ['--for <duration>', 'how long it is good, as 1h or 7d (default 7d)'],
      ['--note <text>', 'for whom'],
    ],
    route: 'create_invite',
    ask: (_, { uses, for: lifetime, note }) => ({
      body: {
        uses: parseCount(text(uses) ?? '1', '--uses', 1),
        expires_in_s: parseDuration(text(lifetime) ?? '7d'),
        note: text(note) ?? null,
      },
    }),
  },
  {
    usage: 'revoke-invite <invite>',
    says: 'end an invite',
    route: 'revoke_invite',
    ask: ([invite_id = '']) => ({ params: { invite_id } }),
    done: 'the invite is revoked',
  },
  {
    usage: 'jobs',
    says: 'jobs of this node and their last runs',
    route: 'list_jobs',
    list: {
      member: 'jobs',
      columns: [
        ['JOB', (row) => row.job],
        ['EVERY', (row) => `${row.every_ms / 1_000} s`],
        ['LAST RUN', (row) => time(row.last_run?.began_at)],
        ['TOOK', (row) => (row.last_run === null ? '-' : `${row.last_run.ms} ms`)],
        ['ROWS', (row) => row.last_run?.rows ?? '-'],
        ['ENDED', (row) => row.last_run?.ended ?? '-'],
      ],
    },
  },
  {
    usage: 'run <job>',
    says: 'run a job now',
    route: 'run_job',
    ask: ([job = '']) => ({ params: { job }, body: {} }),
    done: 'it runs; see: sealpost admin jobs',
  },

  {
    usage: 'list',
    says: 'admins',
    route: 'list_admins',
    list: {
      member: 'admins',
      columns: [
        ['ADMIN', (row) => row.admin_id],
        ['NAME', (row) => row.name],
        ['ROLE', (row) => row.role],
        ['ADDED', (row) => time(row.created_at)],
        ['STATE', (row) => (row.removed_at === null ? 'active' : `removed ${time(row.removed_at)}`)],
      ],
    },
  },
  {
    usage: 'add <name> <public-key>',
    says: 'add an admin by the public key that sealpost admin key shows on its machine',
    options: [['--role <role>', 'viewer, operator or owner (default viewer)']],
    route: 'add_admin',
    ask: ([name, public_key], { role }) => ({ body: { name, public_key, role: text(role) ?? 'viewer' } }),
  },
  {
    usage: 'role <admin> <role>',
    says: 'give an admin another role: viewer, operator or owner',
    route: 'set_admin_role',
    ask: ([admin_id = '', role]) => ({ params: { admin_id }, body: { role } }),
    done: 'the role is in force',
  },
  {
    usage: 'remove <admin>',
    says: 'remove an admin; its tokens die at once',
    route: 'remove_admin',
    ask: ([admin_id = '']) => ({ params: { admin_id } }),
    done: 'removed',
  },
  {
    usage: 'signing-keys',
    says: 'keys that sign tokens',
    route: 'list_signing_keys',
    list: {
      member: 'keys',
      columns: [
        ['PURPOSE', (row) => row.purpose],
        ['KEY', (row) => row.kid],
        ['STATE', (row) => row.state],
        ['ACTIVE SINCE', (row) => time(row.active_at)],
      ],
    },
  },
  {
    usage: 'rotate-signing-keys <purpose>',
    says: 'let the next key sign from now on: rest or admin',
    route: 'rotate_signing_keys',
    ask: ([purpose]) => ({ body: { purpose } }),
    done: 'the next key signs from now on',
  },
]
