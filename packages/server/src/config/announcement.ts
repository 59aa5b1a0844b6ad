/**
 * What a relay that has started says on stdout: where it listens, its key, and the commands that come next. A command is printed only
 * where it works as it stands: the address in it is one that `sealpost init` takes (`parseServerUrl`).
 */
import { DEFAULT_ADMIN_URL, isLoopback, isUnspecified, parseServerUrl, quotePath, toBase64url } from '@sealpost/protocol'
import type { Config } from './config.ts'
import { defaultText } from './shown-variable.ts'
import { VARIABLES } from './variables.ts'

type Announced = Pick<Config, 'host' | 'public_url' | 'admin' | 'data_dir' | 'database_url'>
/** Of a relay that listens: its URLs on this machine, and its Ed25519 public key. */
type Started = { url: string; admin_url: string | null; server_key: Uint8Array }

export function announce(config: Announced, server: Started, fingerprint: string): string {
  const lines = [
    `listening on ${server.url}${isUnspecified(config.host) ? `, and at the other addresses of this machine` : ''}`,
    `server key fingerprint: ${fingerprint}`,
    ...forDevices(config, server),
    ...forAdmins(config, server),
  ]
  return `${lines.join('\n')}\n`
}

/** The address is in quotes: shells read `[`, `]` and `#` in their own way. */
function forDevices({ host, public_url }: Announced, { url, server_key }: Started): string[] {
  const address = public_url ?? url
  const command = isTaken(address)
    ? [
        `next, on ${public_url === null ? 'this machine' : 'the first device'}:`,
        '  npx sealpost init --name laptop \\',
        `    --server "${address}/#${toBase64url(server_key)}"`,
      ]
    : []
  if (public_url !== null || isLoopback(host)) return command
  return [...command, 'other machines need https: put a TLS proxy in front, and set SEALPOST_PUBLIC_URL to its address']
}

function forAdmins({ admin, data_dir, database_url }: Announced, { admin_url }: Started): string[] {
  if (admin === null || admin_url === null) return []
  const folder = data_dir === defaultText(VARIABLES.SEALPOST_DATA) ? '' : ` --data ${quotePath(data_dir)}`
  return [
    isTaken(admin_url)
      ? `for admins: ${admin_url}${admin_url === DEFAULT_ADMIN_URL ? '' : ', named with --url or SEALPOST_ADMIN_URL'}`
      : `for admins, by a TLS proxy or a tunnel (ssh -L): ${admin.host}, port ${admin.port}`,
    `the first owner, once${database_url === null ? '' : ', with the DATABASE_URL of this relay'}:`,
    `  npx sealpost admin init --name NAME${database_url === null ? folder : ''}`,
  ]
}

function isTaken(address: string): boolean {
  try {
    parseServerUrl(address)
    return true
  } catch {
    return false
  }
}
