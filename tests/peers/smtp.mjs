// A mail server that delivers to nobody: node smtp.mjs
//
// Listens on a port of its own on this machine, prints it as the first line, and then each mail as one line of JSON:
// from, to, and the message as it came over the wire. Ends with its input. Addresses that begin with `refused` are refused
// for good, addresses that begin with `later` are put off the first time.

import { SMTPServer } from "smtp-server";

const port = Number(process.argv[2] ?? 0);
const MOST = 1 << 20;
const seen = new Set();

const server = new SMTPServer({
  authOptional: true,
  disabledCommands: ["STARTTLS", "AUTH"],
  disableReverseLookup: true,
  size: MOST,
  logger: false,
  onRcptTo({ address }, _session, done) {
    const refuse = (code) => done(Object.assign(new Error(`not ${address}`), { responseCode: code }));
    if (address.startsWith("refused")) return refuse(550);
    if (address.startsWith("later") && !seen.has(address)) {
      seen.add(address);
      return refuse(451);
    }
    done();
  },
  onData(stream, session, done) {
    const parts = [];
    let length = 0;
    stream.on("data", (part) => {
      length += part.length;
      if (length <= MOST) parts.push(part);
    });
    stream.on("end", () => {
      if (length > MOST) return done(new Error("too much"));
      const { mailFrom, rcptTo } = session.envelope;
      const mail = {
        from: mailFrom.address,
        to: rcptTo.map(({ address }) => address),
        message: Buffer.concat(parts).toString("utf8"),
      };
      process.stdout.write(`${JSON.stringify(mail)}\n`);
      done();
    });
  },
});
server.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
server.listen(port, "127.0.0.1", () => process.stdout.write(`${server.server.address().port}\n`));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
