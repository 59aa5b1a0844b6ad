import { Client } from 'pg'
import { expect, it } from 'vitest'
import { useDatabase } from '@sealpost/testing/components/test-database'

const database = useDatabase()

it('each test file has a database of its own', async () => {
  const client = new Client(database.connection)
  await client.connect()
  const { rows } = await client.query('select current_database() as name')
  await client.end()
  expect(rows[0].name).toMatch(/^sealpost_test_/)
})
