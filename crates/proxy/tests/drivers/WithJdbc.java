// Debian's JDBC driver, run as a single file. It has no channel binding, so its encrypted session logs in by SCRAM-SHA-256
// alone, and its pipelines are batches, which always end with a Sync. Each case has a thread: `next()` says that the
// session is in its state, or that its transaction has ended, and waits to go on.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyOut;

public class WithJdbc {
    /** Seconds that a case may take to its next step on a busy machine. */
    static final int LIMIT = 50;
    static final String STORY = "select string_agg(what || '@' || side, ' ' order by at) from said"
        + " where session = current_setting('application_name')";
    static final String LOCKS = "select string_agg(objid || ' ' || mode, ', ' order by objid) from pg_locks"
        + " where locktype = 'advisory' and pid = pg_backend_pid()";
    static final String SETTINGS = "select concat_ws(', ', current_user, current_setting('work_mem'),"
        + " current_setting('my.own'), current_setting('search_path'), current_setting('TimeZone'),"
        + " current_setting('default_transaction_isolation'))";
    static final String WAIT = "select pg_advisory_xact_lock_shared(4711)";
    static final String LONG = "copy (select who(), repeat('x', 1000) from generate_series(1, 60000)) to stdout";

    interface Case {
        void play(Session session) throws Exception;
    }

    /** A connection, and the thread that speaks on it. */
    static class Session extends Thread {
        final String name;
        final Case play;
        final SynchronousQueue<String> arrived = new SynchronousQueue<>();
        final SynchronousQueue<String> go = new SynchronousQueue<>();
        Connection c;

        Session(String name, Case play) {
            this.name = name;
            this.play = play;
            setDaemon(true);
        }

        @Override
        public void run() {
            String verdict = "ok";
            try {
                c = connect(name);
                play.play(this);
            } catch (Throwable error) {
                verdict = error.toString().replaceAll("\\s+", " ");
            }
            try {
                arrived.put(verdict);
            } catch (InterruptedException error) {
                // Nobody waits any more.
            }
        }

        void next() throws Exception {
            arrived.put("");
            go.take();
        }

        /** What it says when it has come to its next step: nothing, or the verdict. */
        String step() throws Exception {
            String said = arrived.poll(LIMIT, TimeUnit.SECONDS);
            return said == null ? "it goes no further" : said;
        }

        void say(String what) throws Exception {
            String insert = "insert into said (session, what) values (current_setting('application_name'), ?)";
            try (PreparedStatement statement = c.prepareStatement(insert)) {
                statement.setString(1, what);
                statement.executeUpdate();
            }
        }

        void run(String sql) throws Exception {
            try (Statement statement = c.createStatement()) {
                statement.execute(sql);
            }
        }

        String value(String sql) throws Exception {
            try (Statement statement = c.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    static Connection connect(String name) throws Exception {
        Properties options = new Properties();
        options.setProperty("user", "scram_user");
        options.setProperty("password", System.getenv("PROXY_PASSWORD"));
        options.setProperty("ApplicationName", name);
        options.setProperty("sslmode", "disable");
        if (name.equals("tls_and_channel_binding")) {
            options.setProperty("sslmode", "verify-full");
            options.setProperty("sslrootcert", System.getenv("PROXY_CA"));
        }
        String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("PROXY_PORT") + "/postgres";
        return DriverManager.getConnection(url, options);
    }

    static void same(Object got, Object want) {
        if (!String.valueOf(got).equals(String.valueOf(want))) {
            throw new AssertionError(got + " instead of " + want);
        }
    }

    static String sides(String name) {
        return "select string_agg(side, ', ' order by side) from (select side || ' ' || count(*) as side from said"
            + " where session = '" + name + "' group by side) s";
    }

    static void inTransaction(Session s) throws Exception {
        s.c.setAutoCommit(false);
        s.say("before");
        s.next();
        s.say("during");
        same(s.value(STORY), "before@blue during@blue");
        s.c.commit();
        s.next();
        s.say("after");
        same(s.value(STORY), "before@blue during@blue after@green");
        s.c.commit();
    }

    static void inPipeline(Session s) throws Exception {
        String insert = "insert into said (session, what) select 'in_pipeline', ? from (" + WAIT + ") w";
        Throwable[] failed = new Throwable[1];
        Thread before = new Thread(() -> {
            try {
                batch(s, insert, "before");
            } catch (Throwable error) {
                failed[0] = error;
            }
        });
        before.start();
        s.next();
        before.join();
        same(failed[0], null);
        s.next();
        batch(s, insert, "after");
        same(s.value(sides("in_pipeline")), "blue 100, green 100");
    }

    static void batch(Session s, String insert, String what) throws Exception {
        try (PreparedStatement statement = s.c.prepareStatement(insert)) {
            for (int n = 0; n < 100; n++) {
                statement.setString(1, what + " " + n);
                statement.addBatch();
            }
            for (int count : statement.executeBatch()) {
                same(count, 1);
            }
        }
    }

    static void inCopyIn(Session s) throws Exception {
        CopyIn copy = s.c.unwrap(PGConnection.class).getCopyAPI().copyIn("copy said (session, what) from stdin");
        for (int n = 0; n < 2000; n++) {
            byte[] line = ("in_copy_in\tline " + n + "\n").getBytes();
            copy.writeToCopy(line, 0, line.length);
            if (n == 1000) {
                copy.flushCopy();
                s.next();
            }
        }
        same(copy.endCopy(), 2000);
        s.next();
        s.say("after");
        same(s.value(sides("in_copy_in")), "blue 2000, green 1");
    }

    static void inCopyOut(Session s) throws Exception {
        CopyOut copy = s.c.unwrap(PGConnection.class).getCopyAPI().copyOut(LONG);
        int lines = 0;
        byte[] line;
        while ((line = copy.readFromCopy()) != null) {
            lines += new String(line).startsWith("blue\tx") ? 1 : 0;
            if (lines == 10) {
                s.next();
            }
        }
        same(lines, 60000);
        s.next();
        same(s.value("select who()"), "green");
    }

    static void withCursor(Session s) throws Exception {
        for (String side : List.of("blue", "green")) {
            s.c.setAutoCommit(false);
            try (PreparedStatement statement = s.c.prepareStatement("select n, who() from generate_series(1, ?) n")) {
                statement.setFetchSize(10);
                statement.setInt(1, 1000);
                int count = 0;
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        count++;
                        same(rows.getInt(1) + rows.getString(2), count + side);
                        if (count == 10 && side.equals("blue")) {
                            s.next();
                        }
                    }
                }
                same(count, 1000);
            }
            s.c.commit();
            if (side.equals("blue")) {
                s.next();
            }
        }
    }

    static void idle(Session s) throws Exception {
        s.say("before");
        s.next();
        s.say("after");
        same(s.value(STORY), "before@blue after@green");
    }

    static void withHeldCursor(Session s) throws Exception {
        s.run("declare kept cursor with hold for select generate_series(1, 1000)");
        s.next();
        try {
            s.run("fetch kept");
        } catch (SQLException error) {
            same(error.getSQLState(), "57P01");
            return;
        }
        throw new AssertionError("it was not ended");
    }

    static void withPreparedStatements(Session s) throws Exception {
        List<PreparedStatement> statements = new ArrayList<>();
        for (int n = 0; n < 50; n++) {
            PreparedStatement statement = s.c.prepareStatement("select ?::int + " + n + " || who()");
            statement.unwrap(org.postgresql.PGStatement.class).setPrepareThreshold(1);
            statements.add(statement);
        }
        ask(statements, "blue");
        String count = "select count(*) from pg_prepared_statements where statement like '%who()'";
        same(s.value(count), 50);
        s.next();
        ask(statements, "green");
        same(s.value(count), 50);
    }

    static void ask(List<PreparedStatement> statements, String side) throws Exception {
        for (int n = 0; n < 50; n++) {
            statements.get(n).setInt(1, n);
            try (ResultSet rows = statements.get(n).executeQuery()) {
                rows.next();
                same(rows.getString(1), (n + n) + side);
            }
        }
    }

    static void withListen(Session s) throws Exception {
        s.run("listen news");
        s.next();
        List<String> news = new ArrayList<>();
        while (news.size() < 2) {
            var heard = s.c.unwrap(PGConnection.class).getNotifications(30_000);
            if (heard == null || heard.length == 0) {
                throw new AssertionError("only this was heard: " + news);
            }
            for (var one : heard) {
                news.add(one.getParameter());
            }
        }
        same(news, "[from blue, from green]");
        same(s.value("select who()"), "green");
    }

    static void withAdvisoryLocks(Session s) throws Exception {
        for (String lock : List.of("lock(1)", "lock(1)", "lock_shared(2)", "lock(3)", "unlock(3)")) {
            s.run("select pg_advisory_" + lock);
        }
        same(s.value(LOCKS), "1 ExclusiveLock, 2 ShareLock");
        s.next();
        same(s.value("select who() || ' ' || (" + LOCKS + ")"), "green 1 ExclusiveLock, 2 ShareLock");
        for (String unlocked : List.of("t", "t", "f")) {
            same(s.value("select pg_advisory_unlock(1)"), unlocked);
        }
    }

    static void withSettings(Session s) throws Exception {
        s.run("set work_mem = '7MB'; set search_path = pg_catalog, public; set timezone = 'Asia/Tokyo'");
        s.c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        s.run("set role reader");
        s.value("select set_config('my.own', 'it''s', false)");
        String want = "reader, 7MB, it's, pg_catalog, public, Asia/Tokyo, repeatable read";
        same(s.value(SETTINGS), want);
        s.next();
        same(s.value(SETTINGS), want);
        same(s.c.unwrap(PGConnection.class).getParameterStatus("TimeZone"), "Asia/Tokyo");
        same(s.value("select who()"), "green");
    }

    static void tlsAndChannelBinding(Session s) throws Exception {
        s.say("before");
        s.next();
        s.say("after");
        same(s.value(STORY), "before@blue after@green");
        same(s.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()"), "t");
    }

    static void tell(String text) {
        System.out.println(text);
        System.out.flush();
    }

    public static void main(String[] args) throws Exception {
        Map<String, Session> inside = sessions(Map.of(
            "in_transaction", WithJdbc::inTransaction, "in_pipeline", WithJdbc::inPipeline,
            "in_copy_in", WithJdbc::inCopyIn, "in_copy_out", WithJdbc::inCopyOut,
            "with_cursor", WithJdbc::withCursor));
        Map<String, Session> atRest = sessions(Map.of(
            "idle", WithJdbc::idle, "with_held_cursor", WithJdbc::withHeldCursor,
            "with_prepared_statements", WithJdbc::withPreparedStatements, "with_listen", WithJdbc::withListen,
            "with_advisory_locks", WithJdbc::withAdvisoryLocks, "with_settings", WithJdbc::withSettings,
            "tls_and_channel_binding", WithJdbc::tlsAndChannelBinding));
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        tell("ready");
        same(input.readLine(), "held");
        for (Session s : atRest.values()) {
            s.go.put("");
        }
        same(input.readLine(), "finish");
        for (Session s : inside.values()) {
            s.go.put("");
            String said = s.step();
            if (!said.isEmpty()) {
                tell(s.name + ": " + said);
            }
            s.go.offer("", LIMIT, TimeUnit.SECONDS);
        }
        tell("finished");
        for (Map<String, Session> some : List.of(inside, atRest)) {
            for (Session s : some.values()) {
                tell(s.name + ": " + s.step());
            }
        }
        tell("done");
        System.exit(0);
    }

    /** Each in its state. */
    static Map<String, Session> sessions(Map<String, Case> cases) throws Exception {
        Map<String, Session> sessions = new LinkedHashMap<>();
        for (var one : cases.entrySet()) {
            Session session = new Session(one.getKey(), one.getValue());
            session.start();
            String said = session.step();
            if (!said.isEmpty()) {
                tell(one.getKey() + ": " + said);
            }
            sessions.put(one.getKey(), session);
        }
        return sessions;
    }
}
