// An MS-NNS forwarder on .NET's NegotiateStream: see interop/peers/__init__.py for its command line.
// With "async", every read and write is an asynchronous one; otherwise a thread blocks for each direction.

using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Principal;
using System.Threading;
using System.Threading.Tasks;

static class Peer
{
    static string spn;
    static string host;
    static int port;
    static bool client;
    static bool asynchronous;
    static ProtectionLevel level = ProtectionLevel.EncryptAndSign;

    static void Say(string text)
    {
        lock (typeof(Peer))
        {
            Console.Out.Write(text.Replace('\n', ' ') + "\n");
            Console.Out.Flush();
        }
    }

    static string Reason(Exception error)
    {
        return error.InnerException == null ? error.Message : error.Message + " " + error.InnerException.Message;
    }

    static int Main(string[] words)
    {
        if (words.Length < 4)
        {
            Console.Error.WriteLine("usage: client|server HOST PORT SPN [async] [sign]");
            return 2;
        }
        client = words[0] == "client";
        host = words[1];
        port = int.Parse(words[2]);
        spn = words[3];
        asynchronous = words.Skip(4).Contains("async");
        if (words.Skip(4).Contains("sign"))
            level = ProtectionLevel.Sign;
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start(64);
        Say("listening " + ((IPEndPoint)listener.LocalEndpoint).Port);
        while (true)
        {
            var accepted = listener.AcceptTcpClient();
            accepted.NoDelay = true;
            if (asynchronous)
                Task.Run(() => ServeAsync(accepted));
            else
                new Thread(() => Serve(accepted)).Start();
        }
    }

    static TcpClient Connect()
    {
        var connected = new TcpClient();
        connected.Connect(host, port);
        connected.NoDelay = true;
        return connected;
    }

    static void Serve(TcpClient accepted)
    {
        TcpClient other = null;
        var stage = "refused ";
        try
        {
            if (client)
                other = Connect();
            var secured = client ? other : accepted;
            var stream = new NegotiateStream(secured.GetStream(), true);
            if (client)
                stream.AuthenticateAsClient(CredentialCache.DefaultNetworkCredentials, spn, level, TokenImpersonationLevel.Identification);
            else
                stream.AuthenticateAsServer(CredentialCache.DefaultNetworkCredentials, level, TokenImpersonationLevel.Identification);
            Authenticated(stream);
            if (!client)
                other = Connect();
            var plain = client ? accepted : other;
            // Once: after Shutdown it counts as not connected, and gives none to a thread that starts late.
            var inside = plain.GetStream();
            stage = "lost ";
            Exception failed = null;
            var outward = new Thread(() =>
            {
                try
                {
                    Copy(inside, stream);
                    secured.Client.Shutdown(SocketShutdown.Send);
                }
                catch (Exception error)
                {
                    failed = error;
                    secured.Close();
                }
            });
            outward.Start();
            Copy(stream, inside);
            plain.Client.Shutdown(SocketShutdown.Send);
            outward.Join();
            Say(failed == null ? "ended" : "lost " + Reason(failed));
        }
        catch (Exception error)
        {
            Say(stage + Reason(error));
        }
        finally
        {
            accepted.Close();
            if (other != null)
                other.Close();
        }
    }

    static async Task ServeAsync(TcpClient accepted)
    {
        TcpClient other = null;
        var stage = "refused ";
        try
        {
            if (client)
                other = Connect();
            var secured = client ? other : accepted;
            var stream = new NegotiateStream(secured.GetStream(), true);
            if (client)
                await stream.AuthenticateAsClientAsync(CredentialCache.DefaultNetworkCredentials, spn, level, TokenImpersonationLevel.Identification);
            else
                await stream.AuthenticateAsServerAsync(CredentialCache.DefaultNetworkCredentials, level, TokenImpersonationLevel.Identification);
            Authenticated(stream);
            if (!client)
                other = Connect();
            var plain = client ? accepted : other;
            stage = "lost ";
            var outward = CopyAsync(plain.GetStream(), stream, secured);
            var inward = CopyAsync(stream, plain.GetStream(), plain);
            await await Task.WhenAny(outward, inward);
            await Task.WhenAll(outward, inward);
            Say("ended");
        }
        catch (Exception error)
        {
            Say(stage + Reason(error));
        }
        finally
        {
            accepted.Close();
            if (other != null)
                other.Close();
        }
    }

    static void Authenticated(NegotiateStream stream)
    {
        if (!(stream.IsMutuallyAuthenticated && stream.IsSigned) || (level == ProtectionLevel.EncryptAndSign && !stream.IsEncrypted))
            throw new IOException("the stream lacks what was asked for");
        Say("authenticated " + stream.RemoteIdentity.Name);
    }

    static void Copy(Stream from, Stream to)
    {
        var data = new byte[65536];
        int size;
        while ((size = from.Read(data, 0, data.Length)) > 0)
            to.Write(data, 0, size);
        to.Flush();
    }

    static async Task CopyAsync(Stream from, Stream to, TcpClient target)
    {
        var data = new byte[65536];
        int size;
        while ((size = await from.ReadAsync(data, 0, data.Length)) > 0)
            await to.WriteAsync(data, 0, size);
        await to.FlushAsync();
        target.Client.Shutdown(SocketShutdown.Send);
    }
}
