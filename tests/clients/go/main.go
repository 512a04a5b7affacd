// A client of etcd that knows nothing of kvstore: go.etcd.io/etcd/client/v3 as it comes.
//
// Usage: client ENDPOINT,ENDPOINT... Each step prints its name once it has held; the first one that
// does not ends the program with status 1.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const patience = 30 * time.Second

type step struct {
	name string
	do   func(context.Context, *clientv3.Client) error
}

func main() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(os.Args[1], ","),
		DialTimeout: patience,
	})
	check("connect", err)
	defer client.Close()
	for _, each := range []step{
		{"put and get", putAndGet}, {"range", manyKeys}, {"txn", txn}, {"watch", watch},
		{"lease", lease}, {"lock", lock}, {"election", election}, {"errors", errors},
		{"maintenance", maintenance},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		check(each.name, each.do(ctx, client))
		cancel()
	}
}

func check(name string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	fmt.Println(name)
}

func expect(held bool, format string, values ...any) error {
	if held {
		return nil
	}
	return fmt.Errorf(format, values...)
}

func putAndGet(ctx context.Context, client *clientv3.Client) error {
	put, err := client.Put(ctx, "go/key", "value")
	if err != nil {
		return err
	}
	got, err := client.Get(ctx, "go/key")
	if err != nil {
		return err
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "value" {
		return fmt.Errorf("got %v", got.Kvs)
	}
	old, err := client.Get(ctx, "go/key", clientv3.WithRev(put.Header.Revision-1))
	if err != nil {
		return err
	}
	if err := expect(len(old.Kvs) == 0, "it was there before it was put: %v", old.Kvs); err != nil {
		return err
	}
	deleted, err := client.Delete(ctx, "go/key", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	return expect(deleted.Deleted == 1 && len(deleted.PrevKvs) == 1, "deleted %v", deleted)
}

func manyKeys(ctx context.Context, client *clientv3.Client) error {
	const count = 250
	for number := range count {
		if _, err := client.Put(ctx, fmt.Sprintf("go/many/%03d", number), "x"); err != nil {
			return err
		}
	}
	first, err := client.Get(ctx, "go/many/", clientv3.WithPrefix(), clientv3.WithLimit(10),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return err
	}
	return expect(first.Count == count && len(first.Kvs) == 10 && first.More &&
		string(first.Kvs[0].Key) == "go/many/249", "got %d of %d", len(first.Kvs), first.Count)
}

func txn(ctx context.Context, client *clientv3.Client) error {
	answer, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("go/txn"), "=", 0)).
		Then(clientv3.OpPut("go/txn", "1"), clientv3.OpTxn(nil,
			[]clientv3.Op{clientv3.OpGet("go/txn")}, nil)).
		Else(clientv3.OpGet("go/txn")).Commit()
	if err != nil {
		return err
	}
	if err := expect(answer.Succeeded && len(answer.Responses) == 2, "%v", answer); err != nil {
		return err
	}
	again, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("go/txn"), "=", 0)).
		Then(clientv3.OpPut("go/txn", "2")).
		Else(clientv3.OpGet("go/txn")).Commit()
	if err != nil {
		return err
	}
	found := again.Responses[0].GetResponseRange()
	return expect(!again.Succeeded && string(found.Kvs[0].Value) == "1", "%v", again)
}

func watch(ctx context.Context, client *clientv3.Client) error {
	put, err := client.Put(ctx, "go/watch/0", "before")
	if err != nil {
		return err
	}
	events := client.Watch(ctx, "go/watch/", clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(put.Header.Revision))
	for number := 1; number < 5; number++ {
		if _, err := client.Put(ctx, "go/watch/0", fmt.Sprint(number)); err != nil {
			return err
		}
	}
	if _, err := client.Delete(ctx, "go/watch/0"); err != nil {
		return err
	}
	seen := 0
	for response := range events {
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			if event.Kv.ModRevision != put.Header.Revision+int64(seen) {
				return fmt.Errorf("event %d is of revision %d", seen, event.Kv.ModRevision)
			}
			seen++
		}
		if seen == 6 {
			return nil
		}
	}
	return fmt.Errorf("the watch ended after %d events", seen)
}

func lease(ctx context.Context, client *clientv3.Client) error {
	granted, err := client.Grant(ctx, 60)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, "go/lease", "x", clientv3.WithLease(granted.ID)); err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, granted.ID)
	if err != nil {
		return err
	}
	if answer := <-alive; answer == nil || answer.TTL != 60 {
		return fmt.Errorf("kept alive: %v", answer)
	}
	left, err := client.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	if err := expect(len(left.Keys) == 1 && left.GrantedTTL == 60, "%v", left); err != nil {
		return err
	}
	if _, err := client.Revoke(ctx, granted.ID); err != nil {
		return err
	}
	got, err := client.Get(ctx, "go/lease")
	if err != nil {
		return err
	}
	return expect(len(got.Kvs) == 0, "the key outlived its lease")
}

func lock(ctx context.Context, client *clientv3.Client) error {
	first, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	if err != nil {
		return err
	}
	defer second.Close()
	held, waiting := concurrency.NewMutex(first, "go/lock"), concurrency.NewMutex(second, "go/lock")
	if err := held.Lock(ctx); err != nil {
		return err
	}
	if err := waiting.TryLock(ctx); err != concurrency.ErrLocked {
		return fmt.Errorf("a lock that is held: %v", err)
	}
	got := make(chan error, 1)
	go func() { got <- waiting.Lock(ctx) }()
	if err := held.Unlock(ctx); err != nil {
		return err
	}
	if err := <-got; err != nil {
		return err
	}
	return waiting.Unlock(ctx)
}

func election(ctx context.Context, client *clientv3.Client) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	if err != nil {
		return err
	}
	defer session.Close()
	candidate := concurrency.NewElection(session, "go/election")
	if err := candidate.Campaign(ctx, "first"); err != nil {
		return err
	}
	if err := candidate.Proclaim(ctx, "second"); err != nil {
		return err
	}
	leader, err := candidate.Leader(ctx)
	if err != nil {
		return err
	}
	if err := expect(string(leader.Kvs[0].Value) == "second", "%v", leader.Kvs); err != nil {
		return err
	}
	seen := <-candidate.Observe(ctx)
	if err := expect(string(seen.Kvs[0].Value) == "second", "%v", seen.Kvs); err != nil {
		return err
	}
	if err := candidate.Resign(ctx); err != nil {
		return err
	}
	_, err = candidate.Leader(ctx)
	return expect(err == concurrency.ErrElectionNoLeader, "after it resigned: %v", err)
}

func errors(ctx context.Context, client *clientv3.Client) error {
	_, err := client.Put(ctx, "", "x")
	if err := expect(err == rpctypes.ErrEmptyKey, "an empty key: %v", err); err != nil {
		return err
	}
	_, err = client.Get(ctx, "x", clientv3.WithRev(1<<40))
	if err := expect(err == rpctypes.ErrFutureRev, "the future: %v", err); err != nil {
		return err
	}
	_, err = client.Revoke(ctx, 424242)
	return expect(err == rpctypes.ErrLeaseNotFound, "no lease: %v", err)
}

func maintenance(ctx context.Context, client *clientv3.Client) error {
	members, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	if err := expect(len(members.Members) == len(client.Endpoints()), "%v", members); err != nil {
		return err
	}
	for _, endpoint := range client.Endpoints() {
		status, err := client.Status(ctx, endpoint)
		if err != nil {
			return err
		}
		if err := expect(status.Leader != 0, "%s: %v", endpoint, status); err != nil {
			return err
		}
	}
	_, err = client.AlarmList(ctx)
	return err
}
