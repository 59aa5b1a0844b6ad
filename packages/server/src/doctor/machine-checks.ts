/** Checks of the configuration, of this machine, and of what the relay keeps on its disk. */
import { LIMITS } from '@sealpost/protocol'
import { type Check, fail, ok, seen, sizeText, skipped, type Verdict, warn } from './check.ts'
import type { Disk, Facts, Folder, SecretsFile } from './facts.ts'

const MIB = 2 ** 20
const OPEN_FILES_MIN = 65_536
/** Beside what waits in the relay: the process itself, and the embedded PostgreSQL. */
const MEMORY_BESIDE = 512 * MIB
const DISK_MIN = 256 * MIB
const DISK_LOW = 2_048 * MIB
const LOW_SHARE = 0.05
const INODES_MIN = 1_000

export const MACHINE_CHECKS: readonly Check[] = [
  {
    name: 'configuration',
    says: 'the variables and options of the relay: known names, valid values',
    run: ({ config, mistakes }) =>
      'seen' in config ? ok('understood') : fail(`mistakes: ${mistakes.length}; a relay does not start`, mistakes.join('\n')),
  },
  {
    name: 'node',
    says: 'the version of Node.js',
    run: ({ machine: { node } }) =>
      isAtLeast(node.version, node.wanted)
        ? ok(node.version)
        : fail(`${node.version}, which is too old`, `install Node.js ${node.wanted} or later`),
  },
  {
    name: 'open-files',
    says: 'how many files and sockets one process may have open (Linux)',
    run: ({ machine: { open_files: most } }) => {
      if (most === null) return skipped('this system does not tell')
      if (most >= OPEN_FILES_MIN) return ok(`${most} for what starts here`)
      return warn(
        `${most} for what starts here: so many sockets, and no more, can be open at once`,
        `raise it where the relay is started: LimitNOFILE=${LIMITS.connectionsMax + 1_000} of a systemd service, --ulimit nofile of a container, ulimit -n of a shell`,
      )
    },
  },
  {
    name: 'memory',
    says: 'the memory of the machine or container against the queues of the relay',
    run: ({ machine: { memory_bytes }, config }) =>
      seen(config, ({ limits, database_url, workers }) => {
        const wanted = workers * (2 * limits.queueBytesMax + MEMORY_BESIDE) + (database_url === null ? MEMORY_BESIDE : 0)
        if (memory_bytes >= wanted) return ok(sizeText(memory_bytes))
        return warn(
          `${sizeText(memory_bytes)}; under load the relay may want ${sizeText(wanted)}, and be ended before it turns work away`,
          'give it more memory, or lower SEALPOST_LIMIT_QUEUE_BYTES',
        )
      }),
  },
  {
    name: 'data-folder',
    says: 'the data folder: it exists, belongs to the right user and is closed to others',
    run: ({ folder, machine }) => seen(folder, (value) => judgeFolder(value, machine.uid)),
  },
  { name: 'disk', says: 'the free space of the data folder', run: (facts) => onDisk(facts, judgeSpace) },
  { name: 'inodes', says: 'the free inodes of the data folder', run: (facts) => onDisk(facts, judgeInodes) },
  {
    name: 'secrets',
    says: 'the file with the keys of the relay: it exists, is intact and is closed to others',
    run: ({ secrets, folder }) => seen(secrets, (file) => judgeSecrets(file, 'seen' in folder ? folder.seen : null)),
  },
]

function judgeFolder(folder: Folder, uid: number | null): Verdict {
  const { path } = folder
  if (folder.is === 'missing')
    return fail(`there is no folder ${path}`, 'name the one of the relay with --data or SEALPOST_DATA; the first start of a relay makes it')
  if (folder.is === 'unusable') return fail(`${path} cannot be used: ${folder.reason}`, 'run this as the user of the relay; check the path')
  const { mode, owner, postgres_owner } = folder
  if (uid === null) return ok(path)
  if (uid !== 0 && owner !== uid)
    return fail(`${path} belongs to user ${owner}, and you are ${uid}`, `run this, and the relay, as its owner, or give it away: chown -R`)
  const text = mode.toString(8).padStart(4, '0')
  if ((mode & 0o022) !== 0)
    return fail(`others may write to ${path} (${text}): they can put another key or database there`, `chmod 700 ${path}`)
  // PostgreSQL under a user of its own has to pass through
  const passable = postgres_owner !== null && postgres_owner !== owner ? 0o711 : 0o700
  if ((mode & 0o077 & ~passable) !== 0) return warn(`others may look into ${path} (${text})`, `chmod ${passable.toString(8)} ${path}`)
  return ok(`${path} (${text})`)
}

function onDisk({ folder }: Facts, judge: (disk: Disk, path: string) => Verdict): Verdict {
  return seen(folder, (value) => (value.is === 'there' ? judge(value.disk, value.path) : skipped('there is no data folder')))
}

function judgeSpace({ free_bytes, total_bytes }: Disk, path: string): Verdict {
  const found = `${sizeText(free_bytes)} of ${sizeText(total_bytes)} free`
  const advice = `make room for ${path}, or bound what is kept: SEALPOST_RETENTION_BYTES, SEALPOST_RETENTION_S, SEALPOST_QUOTA_BYTES`
  if (free_bytes < DISK_MIN) return fail(`${found}: when none is left, nothing more is stored, and PostgreSQL ends`, advice)
  return free_bytes < DISK_LOW || free_bytes < LOW_SHARE * total_bytes ? warn(found, advice) : ok(found)
}

function judgeInodes({ free_inodes, total_inodes }: Disk, path: string): Verdict {
  if (total_inodes === 0) return ok('the file system does not count them')
  const found = `${free_inodes} of ${total_inodes} free`
  const advice = `take files away from the file system of ${path}, or make one with more inodes`
  if (free_inodes < INODES_MIN) return fail(`${found}: when none is left, PostgreSQL can make no file, and ends`, advice)
  return free_inodes < LOW_SHARE * total_inodes ? warn(found, advice) : ok(found)
}

function judgeSecrets(file: SecretsFile, folder: Folder | null): Verdict {
  const { path } = file
  if (file.is === 'missing')
    return fail(
      `there is no file ${path}`,
      'when a relay has run here, put it back from a backup: devices refuse any other key; otherwise the first start makes it',
    )
  if (file.is === 'open')
    return fail(`others can read ${path}: the relay does not start`, `chmod 600 ${path}; who has read it can pass for this server`)
  if (file.is === 'damaged') return fail(`${path} is damaged: the relay does not start`, 'put it back from a backup')
  if (file.is === 'unreadable') return fail(`${path} cannot be read`, 'run this as the user of the relay; check the path and the disk')
  // root reads everything, the user of the relay does not
  if (folder?.is === 'there' && folder.owner !== 0 && folder.owner !== file.owner)
    return fail(
      `${path} belongs to user ${file.owner}, the data folder to ${folder.owner}: one of them cannot be read`,
      `chown ${folder.owner} ${path}`,
    )
  return ok(path)
}

function isAtLeast(version: string, wanted: string): boolean {
  const have = version.split('.').map(Number)
  for (const [i, want] of wanted.split('.').map(Number).entries()) if (have[i] !== want) return (have[i] ?? 0) > want
  return true
}
