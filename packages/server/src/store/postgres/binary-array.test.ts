import { randomBytes, randomUUID } from 'node:crypto'
import { Client } from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { byteaArray, int2Array, int4Array, int8Array, uuidArray } from './binary-array.ts'

const database = useDatabase()
let sql: Client

beforeAll(async () => {
  sql = new Client(database.connection)
  await sql.connect()
})
afterAll(() => sql.end())

const bytes = [randomBytes(0), randomBytes(1), randomBytes(5000)]
const ids = [randomUUID(), randomUUID()]

it.each([
  ['int8', int8Array([0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER]), ['0', '1', '4294967296', '9007199254740991']],
  ['int4', int4Array([0, 1, 2 ** 31 - 1]), ['0', '1', '2147483647']],
  ['int2', int2Array([0, 11, 32767]), ['0', '11', '32767']],
  ['uuid', uuidArray(ids), ids],
  ['bytea', byteaArray(bytes), bytes.map((value) => `\\x${value.toString('hex')}`)],
  ['int8', int8Array([]), []],
  ['bytea', byteaArray([]), []],
])('PostgreSQL reads the %s array as it was meant', async (type, value, expected) => {
  const { rows } = await sql.query<{ x: string }>(`select x::text from unnest($1::${type}[]) with ordinality u (x, i) order by i`, [value])
  expect(rows.map((row) => row.x)).toEqual(expected)
})

it('what is not a lower-case UUID is refused before it is sent', () => {
  for (const text of ['', 'x', ids[0]!.toUpperCase(), `${ids[0]}0`]) expect(() => uuidArray([text])).toThrow('not a lower-case UUID')
})
