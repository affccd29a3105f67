// An MS-NNS forwarder on Java's JGSS: see interop/peers/__init__.py for its command line.
// A thread for each direction of a connection.

import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSCredential;
import org.ietf.jgss.GSSException;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.MessageProp;
import org.ietf.jgss.Oid;

public class Java {
    static final int IN_PROGRESS = 0x16, DONE = 0x14, ERROR = 0x15;
    static final int MOST_PLAIN = 64_500, MOST_BODY = 65_536;
    static final long SEC_E_LOGON_DENIED = 0x8009030CL;

    static boolean client;
    static String host;
    static int port;
    static String spn;
    static boolean spnego, unordered, sign;
    static Oid kerberosMechanism, spnegoMechanism, principalName;

    static synchronized void say(String text) {
        System.out.print(text.replace('\n', ' ') + "\n");
        System.out.flush();
    }

    static class Refused extends Exception {
        Refused(String text) {
            super(text);
        }
    }

    public static void main(String[] words) throws Exception {
        if (words.length < 4) {
            System.err.println("usage: client|server HOST PORT SPN [spnego] [unordered] [sign]");
            System.exit(2);
        }
        client = words[0].equals("client");
        host = words[1];
        port = Integer.parseInt(words[2]);
        spn = words[3];
        List<String> how = Arrays.asList(words).subList(4, words.length);
        spnego = how.contains("spnego");
        unordered = how.contains("unordered");
        sign = how.contains("sign");
        kerberosMechanism = new Oid("1.2.840.113554.1.2.2");
        spnegoMechanism = new Oid("1.3.6.1.5.5.2");
        principalName = new Oid("1.2.840.113554.1.2.2.1");
        ServerSocket listener = new ServerSocket(0, 64, InetAddress.getLoopbackAddress());
        say("listening " + listener.getLocalPort());
        while (true) {
            Socket accepted = listener.accept();
            accepted.setTcpNoDelay(true);
            new Thread(() -> serve(accepted)).start();
        }
    }

    static Socket connect() throws IOException {
        Socket connected = new Socket(host, port);
        connected.setTcpNoDelay(true);
        return connected;
    }

    static void serve(Socket accepted) {
        String stage = "refused ";
        Socket other = null;
        try {
            if (client) {
                other = connect();
            }
            Socket secured = client ? other : accepted;
            DataInputStream in = new DataInputStream(secured.getInputStream());
            OutputStream out = secured.getOutputStream();
            GSSContext context;
            try {
                context = client ? initiate(in, out) : accept(in, out);
            } catch (GSSException error) {
                sendFrame(out, ERROR, ByteBuffer.allocate(8).putLong(SEC_E_LOGON_DENIED).array());
                throw error;
            }
            say("authenticated " + (client ? spn : context.getSrcName()));
            if (!client) {
                other = connect();
            }
            Socket plain = client ? accepted : other;
            stage = "lost ";
            Exception[] failed = new Exception[1];
            Thread outward = new Thread(() -> {
                try {
                    wrapAll(context, plain.getInputStream(), out);
                    secured.shutdownOutput();
                } catch (Exception error) {
                    failed[0] = error;
                    close(secured);
                }
            });
            outward.start();
            unwrapAll(context, in, plain.getOutputStream());
            plain.shutdownOutput();
            outward.join();
            say(failed[0] == null ? "ended" : "lost " + failed[0]);
        } catch (Exception error) {
            Throwable cause = error.getCause();
            say(stage + error + (cause == null ? "" : " " + cause));
        } finally {
            close(accepted);
            close(other);
        }
    }

    static void close(Socket socket) {
        try {
            if (socket != null) {
                socket.close();
            }
        } catch (IOException error) {
            say("lost " + error);
        }
    }

    static void sendFrame(OutputStream out, int kind, byte[] payload) throws IOException {
        ByteBuffer frame = ByteBuffer.allocate(5 + payload.length);
        frame.put((byte) kind).put((byte) 1).put((byte) 0).putShort((short) payload.length).put(payload);
        out.write(frame.array());
        out.flush();
    }

    /** The payload of the next frame, behind the frame's kind. */
    static Object[] readFrame(DataInputStream in) throws IOException, Refused {
        int kind = in.readUnsignedByte();
        in.readUnsignedShort();
        byte[] payload = new byte[in.readUnsignedShort()];
        in.readFully(payload);
        if (kind == ERROR) {
            throw new Refused("by the peer: code " + (payload.length == 8 ? ByteBuffer.wrap(payload).getLong() : -1));
        }
        return new Object[] {kind, payload};
    }

    static void check(GSSContext context) throws Refused {
        if (!context.getMutualAuthState() || !context.getIntegState() || !(sign || context.getConfState())) {
            throw new Refused("the context lacks what was asked for");
        }
    }

    static GSSContext initiate(DataInputStream in, OutputStream out) throws Exception {
        GSSManager manager = GSSManager.getInstance();
        GSSContext context = manager.createContext(
            manager.createName(spn, principalName), spnego ? spnegoMechanism : kerberosMechanism, null,
            GSSContext.DEFAULT_LIFETIME);
        context.requestMutualAuth(true);
        context.requestInteg(true);
        context.requestConf(!sign);
        context.requestReplayDet(!unordered);
        context.requestSequenceDet(!unordered);
        byte[] received = new byte[0];
        boolean peerDone = false;
        while (true) {
            byte[] token = context.isEstablished() ? null : context.initSecContext(received, 0, received.length);
            if (context.isEstablished() && peerDone) {
                break;
            }
            sendFrame(out, context.isEstablished() ? DONE : IN_PROGRESS, token == null ? new byte[0] : token);
            Object[] frame = readFrame(in);
            peerDone = (Integer) frame[0] == DONE;
            received = (byte[]) frame[1];
            if (context.isEstablished() && peerDone) {
                break;
            }
        }
        check(context);
        return context;
    }

    static GSSContext accept(DataInputStream in, OutputStream out) throws Exception {
        GSSManager manager = GSSManager.getInstance();
        GSSCredential keys = manager.createCredential(
            null, GSSCredential.INDEFINITE_LIFETIME, new Oid[] {kerberosMechanism, spnegoMechanism}, GSSCredential.ACCEPT_ONLY);
        GSSContext context = manager.createContext(keys);
        while (!context.isEstablished()) {
            byte[] received = (byte[]) readFrame(in)[1];
            byte[] token = context.acceptSecContext(received, 0, received.length);
            if (context.isEstablished()) {
                check(context);
            }
            sendFrame(out, context.isEstablished() ? DONE : IN_PROGRESS, token == null ? new byte[0] : token);
        }
        return context;
    }

    static void wrapAll(GSSContext context, InputStream plain, OutputStream out) throws Exception {
        byte[] data = new byte[MOST_PLAIN];
        for (int size; (size = plain.read(data)) > 0;) {
            byte[] body = context.wrap(data, 0, size, new MessageProp(0, !sign));
            ByteBuffer message = ByteBuffer.allocate(4 + body.length).order(ByteOrder.LITTLE_ENDIAN);
            out.write(message.putInt(body.length).put(body).array());
            out.flush();
        }
    }

    static void unwrapAll(GSSContext context, DataInputStream in, OutputStream plain) throws Exception {
        byte[] header = new byte[4];
        while (true) {
            int first = in.read();
            if (first < 0) {
                return;
            }
            header[0] = (byte) first;
            in.readFully(header, 1, 3);
            int size = ByteBuffer.wrap(header).order(ByteOrder.LITTLE_ENDIAN).getInt();
            if (size <= 4 || size > MOST_BODY) {
                throw new EOFException("a record of no valid size: " + size);
            }
            byte[] body = new byte[size];
            in.readFully(body);
            MessageProp properties = new MessageProp(0, true);
            byte[] data = context.unwrap(body, 0, size, properties);
            if (!sign && !properties.getPrivacy()) {
                throw new IOException("a record that is not sealed");
            }
            if (properties.isDuplicateToken() || properties.isOldToken() || properties.isUnseqToken() || properties.isGapToken()) {
                throw new IOException("a record out of order");
            }
            if (data.length == 0) {
                say("empty record");
            }
            plain.write(data);
            plain.flush();
        }
    }
}
