/**
 * The balancers as they are shipped in `deploy/`, in front of three relays: the files themselves, with nothing but addresses and paths
 * changed to those of the run. One that is not in the file is a failure.
 */
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Given, Running } from './start-component.ts'
import { type Proxy, type ProxyConfig, startHaproxy, startNginx } from './proxies.ts'
import { ROOT } from './programs.ts'

/** `ports` of relays on 127.0.0.1. */
export async function startShippedHaproxy(ports: readonly number[]): Promise<Proxy> {
  const config = await shipped('haproxy/haproxy.cfg', ports, ({ port, folder }) => ({
    'bind :80\n': `bind 127.0.0.1:${port}\n`,
    '/run/haproxy': folder,
  }))
  return startHaproxy({ config })
}

export async function startShippedNginx(ports: readonly number[]): Promise<Proxy> {
  const config = await shipped('nginx/nginx.conf', ports, ({ port, folder }) => ({
    'listen 80;': `listen 127.0.0.1:${port};`,
    '/var/log/nginx/error.log': join(folder, 'error.log'),
    '/var/log/nginx/access.log': join(folder, 'access.log'),
  }))
  return startNginx({ config })
}

async function shipped(file: string, ports: readonly number[], changes: (given: Given) => Record<string, string>): Promise<ProxyConfig> {
  const text = await readFile(join(ROOT, 'deploy', file), 'utf8')
  const addresses = Object.fromEntries(ports.map((port, i) => [`10.0.0.1${i + 1}:8787`, `127.0.0.1:${port}`]))
  return (given) =>
    Object.entries({ ...addresses, ...changes(given) }).reduce((made, [there, here]) => {
      if (!made.includes(there)) throw new Error(`${file} has no ${there}`)
      return made.replace(there, here)
    }, text)
}

/** What HAProxy says of a relay: `taken` is all that it was ever given. */
export async function askHaproxy({ folder }: Running, server: string): Promise<{ status: string; sockets: number; taken: number }> {
  const text = await new Promise<string>((resolve, reject) => {
    let answer = ''
    const socket = connect(join(folder, 'admin.sock')).setEncoding('utf8')
    socket.on('data', (part: string) => (answer += part))
    socket.on('end', () => resolve(answer))
    socket.on('error', reject)
    socket.end('show stat\n')
  })
  const [names = [], ...rows] = text.split('\n').map((line) => line.replace(/^# /, '').split(','))
  const row = rows.find(([proxy, name]) => proxy === 'relays' && name === server) ?? []
  const column = (name: string): string => row[names.indexOf(name)] ?? ''
  return { status: column('status'), sockets: Number(column('scur')), taken: Number(column('stot')) }
}
