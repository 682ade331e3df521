/* Leadership and judging as orchestrator/monitor does them, for Spin to walk through every interleaving.

   What is in it
     lease      one row: holder, epoch, expiry by the database's clock; _TAKE (of what ran out, or is one's own),
                _RENEW and _RELEASE of leadership.py
     trust      what a holder believes of its own lease, by its own clock, counted from the start of the call
     drainer    locks rows (SKIP LOCKED), reads their signals, judges, writes, commits: judging.py, moves.py
     looker     reads a row without a lock, sees something outside, writes later: looking.py
     guards     of a write: the epoch (lease row FOR SHARE until the commit), compare-and-set, the law of the trigger
     sender     signals in any order, any number, repeated, late, of either attempt
     faults     without any bound: replies that are lost after the effect, calls that never arrive, connections lost
                before the commit or during it, terms that end without a release (a crash at any step) and begin
                again, and pauses of any length (a process that is not scheduled while the clock ticks)

   What is left out, and why it may be
     A call that never arrives is a call not made, and a crash is a term that ends without a release while its
     statements are rolled back, or committed late: neither needs steps of its own.
     Of a lease call the start and the effect are one step, for an earlier start only shortens the trust.
     A session that has lost its client keeps its task busy until it ends; the other task and the other monitor go on.
     Progress and documents move nothing here.

   With LIVENESS faults are counted, and a live holder renews in time once they are used up: then every signal has to
   be judged in the end, whatever the weakly fair scheduler does.

   Each guard can be taken away by a macro; the model has to fail then (tests/lanes/test_model.py). */

#ifndef MONITORS
#define MONITORS 2
#endif
#ifndef CLIPS
#define CLIPS 2
#endif
#ifndef SIGNALS
#define SIGNALS 3
#endif
#ifndef EPOCHS
#define EPOCHS 3          /* terms in all; a further one is not begun */
#endif
#ifndef LOOKS
#define LOOKS 2           /* looks in all */
#endif
#ifndef LEASE
#define LEASE 2           /* ticks; the shortest in which a call can be slow without outlasting its lease */
#endif
#ifndef FAULTS
#define FAULTS 3          /* with LIVENESS: lost calls, replies and connections, crashes, pauses past the lease */
#endif

#define FIRST    1
#define WAITS    2        /* waitformp4 and mp4_processing, the pair that may alternate */
#define MAKES    3
#define COMPLETE 4
#define ERROR    5

/* A request is (attempt, status) in one byte; 0 is none. */
#define ASK(a, s)    ((a) * 8 + (s))
#define ATTEMPT(r)   ((r) / 8)
#define STATUS(r)    ((r) % 8)
/* statusutils.merging.rank: between the two ends an error yields to what was proved. */
#define RANK(r)      (ATTEMPT(r) * 20 + (STATUS(r) == ERROR -> 7 : STATUS(r) * 2))
#define MAY_MOVE(f, t)   ((t) > (f) || ((f) == MAKES && (t) == WAITS))
/* statusutils.transitions.RULES */
#ifdef NO_RULES
#define REFUSED(a, s, r) false
#else
#define REFUSED(a, s, r) ( \
    ATTEMPT(r) < (a) || ATTEMPT(r) > (a) + 1 || \
    (ATTEMPT(r) == (a) + 1 && ((s) != ERROR || STATUS(r) >= COMPLETE)) || \
    (ATTEMPT(r) == (a) && ((s) == STATUS(r) || (s) >= COMPLETE || !MAY_MOVE(s, STATUS(r)))))
#endif
/* the trigger clips_obey_the_law */
#define LAWFUL(a, s, a2, s2) ( \
    ((a2) == (a) && ((s2) == (s) || MAY_MOVE(s, s2))) || \
    ((a2) == (a) + 1 && (s) == ERROR && (s2) < COMPLETE))
#define CLIP_OF(id)  ((id) % CLIPS)

/* The database. */
byte holder = MONITORS, epoch = 0, expires = 0;   /* expires: ticks that are left, 0 is run out */
byte shares = 0;                                  /* sessions that hold the lease row FOR SHARE */
byte status[CLIPS], attempt[CLIPS];
bit  locked[CLIPS];
byte inbox[SIGNALS];                              /* what each signal asks for, while it is pending */
byte judged[SIGNALS];                             /* its lines in the history */
byte sent = 0;

/* The processes. */
byte term[MONITORS];                              /* the epoch it leads in, 0 when it stands by */
byte trust[MONITORS];                             /* ticks for which it still believes in its lease */
byte age[MONITORS];                               /* ticks since its lease call started */

#define LEADS(m, e)  (epoch == (e))                 /* an epoch has one holder */
#define WAITING(id)  (inbox[id] != 0 && !locked[CLIP_OF(id)])
#define SOME_WAIT    (WAITING(0) || WAITING(1) || WAITING(SIGNALS - 1))
#define SOME_TRUST   (trust[0] > 0 || trust[1] > 0 || trust[MONITORS - 1] > 0)

/* Without the fence nobody asks for the epoch; without the share lock it is asked for and then forgotten. */
#ifdef NO_FENCE
#define NO_CAS
#define PASSES(m, e) true
#else
#define PASSES(m, e) LEADS(m, e)
#endif
#if defined(NO_SHARE) || defined(NO_FENCE)
#define SHARE   skip
#define UNSHARE skip
#else
#define SHARE   shares++
#define UNSHARE shares--
#endif
#ifdef TRUST_FROM_REPLY
#define TRUSTED(m) LEASE
#else
#define TRUSTED(m) (LEASE - age[m])
#endif
#ifdef ANYBODY_RENEWS
#define RENEWS(m) (expires > 0)
#else
#define RENEWS(m) (LEADS(m, term[m]) && expires > 0)
#endif

#ifdef LIVENESS
byte faults = FAULTS;
bit  failed[MONITORS];                            /* a task of the term failed: the term has to end */
#define MAY_FAIL     faults > 0
#define COSTS        faults--
#define FAILS(m)     failed[m] = 1
#define FAILED(m)    failed[m]
#define MENDED(m)    failed[m] = 0
#define MAY_STOP(m)  failed[m]
#define NEEDS_RENEWAL expires < LEASE
#define LIVES(m)     ((term[m] == epoch || age[m] < LEASE) && !failed[m])
#define RUNS_OUT     (expires == 1 && holder < MONITORS && LIVES(holder))
#define MAY_TICK     (faults > 0 || !RUNS_OUT)
#else
#define MAY_FAIL     true
#define COSTS        skip
#define FAILS(m)     skip                         /* a term may end at any moment */
#define FAILED(m)    false
#define MENDED(m)    skip
#define MAY_STOP(m)  true
#define NEEDS_RENEWAL true
#define MAY_TICK     true
#endif
#ifdef ONLY_WHEN_WOKEN
bit woken;                                        /* the drainer does not sweep, it trusts in being woken */
#define WOKEN        woken
#else
#define WOKEN        true
#endif

/* Every accepted signal waits, or has been judged once. */
inline check_signals(n) {
    n = 0;
    do
    :: n < sent -> assert(judged[n] <= 1); assert(judged[n] == 1 || inbox[n] != 0); n++
    :: else -> break
    od;
    n = 0
}

/* One clip of a write that commits: compare-and-set, then the law, then the row. */
inline move(c, from, a2, s2, by) {
    assert(by == epoch);                                           /* no stale epoch is ever accepted */
    if
#ifndef NO_CAS
    :: from != ASK(attempt[c], status[c]) -> skip
#endif
#ifndef NO_LAW
    :: !LAWFUL(attempt[c], status[c], a2, s2) -> skip
#endif
    :: else ->
        assert(from == ASK(attempt[c], status[c]));                /* what was decided on is what is */
        assert(LAWFUL(attempt[c], status[c], a2, s2));             /* never back within an attempt */
        attempt[c] = a2; status[c] = s2
    fi
}

/* Taking, renewing and releasing the lease. Each call has an effect in the database, and later a reply. */
#define ENDED_CALL got = 0; age[m] = LEASE                         /* between calls nothing counts their age */
#define TRUSTS     trust[m] = TRUSTED(m); assert(trust[m] == 0 || LEADS(m, term[m]))
#define STANDS_BY  term[m] = 0; trust[m] = 0; MENDED(m)
/* A process that is started again has another name: the lease of the former one is not its own. */
#define FORGETS_ITS_NAME \
    if \
    :: holder == m -> holder = MONITORS \
    :: else \
    fi

proctype keeper(byte m) {
    byte got;
end:
    do
    :: d_step {                                                    /* _TAKE */
        term[m] == 0 && (expires == 0 || holder == m) && shares == 0 && epoch < EPOCHS ->
        assert(!SOME_TRUST);                                       /* who was holder has given up before */
        epoch++; holder = m; expires = LEASE; age[m] = 0; got = epoch };
        if
        :: d_step { term[m] = got; TRUSTS; ENDED_CALL }
        :: d_step { MAY_FAIL -> COSTS; ENDED_CALL }                /* taken, and never told: it runs out */
        fi
    :: d_step {                                                    /* _RENEW */
        term[m] != 0 && RENEWS(m) && shares == 0 && !FAILED(m) &&
        (NEEDS_RENEWAL) -> expires = LEASE; age[m] = 0 };
        if
        :: d_step { TRUSTS; ENDED_CALL }
        :: d_step { MAY_FAIL -> COSTS; ENDED_CALL }                /* one lost renewal is no lost lease */
        fi
    :: d_step { term[m] != 0 && !RENEWS(m) -> STANDS_BY }          /* LeadershipLost; there is nothing to release */
    :: d_step { term[m] != 0 && MAY_STOP(m) && shares == 0 ->      /* told to stop, or a task failed: _RELEASE */
        if
        :: LEADS(m, term[m]) -> expires = 0
        :: else
        fi;
        STANDS_BY }
    :: d_step { term[m] != 0 && MAY_STOP(m) -> STANDS_BY }         /* the same, and the release never arrived */
    :: d_step { term[m] != 0 && MAY_FAIL -> COSTS; STANDS_BY; FORGETS_ITS_NAME }     /* crashed */
    od
}

/* Judging: rows locked and signals read, the write behind its fence, the commit. */
#define FREES \
    do \
    :: c < CLIPS -> \
        if \
        :: (held >> c) & 1 -> locked[c] = 0 \
        :: else \
        fi; \
        c++ \
    :: else -> break \
    od; \
    c = 0; held = 0; read = 0; mine = 0
#define CLEARS \
    do \
    :: id < SIGNALS -> \
        if \
        :: (read >> id) & 1 -> inbox[id] = 0 \
        :: else \
        fi; \
        id++ \
    :: else -> break \
    od; \
    id = 0

proctype drainer(byte m) {
    byte mine, c, id, best;
    byte held, read;                                               /* as sets of bits: clips locked, signals read */
end:
    do
    :: d_step {
        term[m] != 0 && !FAILED(m) && SOME_WAIT && WOKEN ->
#ifdef ONLY_WHEN_WOKEN
        woken = 0;
#endif
        mine = term[m];
        do
        :: id < sent ->
            c = CLIP_OF(id);
            if
            :: inbox[id] != 0 && (!locked[c] || ((held >> c) & 1)) ->
                locked[c] = 1; held = held | (1 << c); read = read | (1 << id)
            :: else
            fi;
            id++
        :: else -> break
        od;
        id = 0; c = 0
        };
        if
        :: d_step { !PASSES(m, mine) -> FREES }                    /* LeadershipLost */
        :: d_step { term[m] != mine -> FREES }                     /* cancelled, or crashed */
        :: d_step { PASSES(m, mine) -> SHARE };
            if
            :: d_step { term[m] != mine -> UNSHARE; FREES }        /* cancelled, or crashed: rolled back */
#ifdef LIVENESS
            :: d_step { MAY_FAIL -> COSTS; FAILS(m); UNSHARE; FREES }
#endif
            :: d_step {                                            /* the commit, perhaps long after its client died */
                do
                :: c < CLIPS && ((held >> c) & 1) ->
                    best = 0; id = 0;
                    do
                    :: id < SIGNALS ->
                        if
                        :: CLIP_OF(id) == c && ((read >> id) & 1) ->
                            judged[id] = judged[id] + 1;
                            if
                            :: !REFUSED(attempt[c], status[c], inbox[id]) &&
                               (best == 0 || RANK(inbox[id]) > RANK(best)) ->
                                best = inbox[id]
                            :: else
                            fi
                        :: else
                        fi;
                        id++
                    :: else -> break
                    od;
                    if
                    :: best != 0 -> move(c, ASK(attempt[c], status[c]), ATTEMPT(best), STATUS(best), mine)
                    :: else -> assert(mine == epoch)
                    fi;
                    c++
                :: c < CLIPS && !((held >> c) & 1) -> c++
                :: else -> break
                od;
                c = 0; best = 0; id = 0; UNSHARE;
#ifdef JUDGE_TWICE
                check_signals(id) };
                if
                :: d_step { term[m] != mine -> FREES }
                :: d_step { CLEARS; FREES }
                fi
#else
                CLEARS; check_signals(id); FREES }
#endif
            fi
        fi
    od
}

/* A look: reads without a lock, decides on what it read, writes when the outside has answered. */
#define FORGETS from = 0; to = 0; c = 0; mine = 0

byte looks = LOOKS;

proctype looker(byte m) {
    byte mine, c, from, to;
end:
    do
    :: atomic {
        term[m] != 0 && !FAILED(m) && looks > 0 ->
        looks--; mine = term[m];
        if
        :: c = 0
#if CLIPS > 1
        :: c = 1
#endif
        fi;
        from = ASK(attempt[c], status[c]);
        if                                                         /* any step that the law allows from there */
        :: to = ASK(attempt[c], WAITS)
        :: to = ASK(attempt[c], MAKES)
        :: to = ASK(attempt[c], COMPLETE)
        :: to = ASK(attempt[c], ERROR)
        fi;
        if
        :: REFUSED(attempt[c], status[c], to) -> to = from
        :: else
        fi
        };
        if
        :: d_step { locked[c] -> FORGETS }                         /* SKIP LOCKED: the next look sees it */
        :: d_step { !PASSES(m, mine) -> FORGETS }                  /* LeadershipLost */
        :: d_step { term[m] != mine -> FORGETS }                   /* cancelled, or crashed */
        :: d_step { PASSES(m, mine) && !locked[c] -> SHARE; locked[c] = 1 };
            if
            :: d_step { term[m] != mine -> UNSHARE; locked[c] = 0; FORGETS }
            :: d_step { move(c, from, ATTEMPT(to), STATUS(to), mine); UNSHARE; locked[c] = 0; FORGETS }
            fi
        fi
    od
}

/* Others ask: a signal waits for the row, and is kept beside those that wait already. */
proctype sender() {
    byte asks, n;
end:
    do
    :: atomic {
        sent < SIGNALS && !locked[CLIP_OF(sent)] ->
        if
        :: asks = ASK(1, WAITS)
        :: asks = ASK(1, MAKES)
        :: asks = ASK(1, COMPLETE)
        :: asks = ASK(1, ERROR)
        :: asks = ASK(2, WAITS)
        fi;
#ifdef ONLY_WHEN_WOKEN
        if
        :: woken = 1
        :: MAY_FAIL -> COSTS                                       /* the notification is lost */
        fi;
#endif
        d_step {
#ifdef LAST_SIGNAL_WINS
            if
            :: sent >= CLIPS -> inbox[sent - CLIPS] = 0
            :: else
            fi;
#endif
            inbox[sent] = asks; sent++; asks = 0;
            check_signals(n)
        }
        }
    od
}

proctype clock() {
    byte m;
end:
    do
    :: d_step {
        (expires > 0 || SOME_TRUST) && MAY_TICK ->
#ifdef LIVENESS
        if
        :: RUNS_OUT -> faults--                                    /* a pause past the lease */
        :: else
        fi;
#endif
        if
        :: expires > 0 -> expires--
        :: else
        fi;
        do
        :: m < MONITORS ->
            if
            :: trust[m] > 0 -> trust[m] = trust[m] - 1
            :: else
            fi;
            if
            :: age[m] < LEASE -> age[m] = age[m] + 1
            :: else
            fi;
            m++
        :: else -> break
        od;
        m = 0
        }
    od
}

init {
    byte n;
    atomic {
        do
        :: n < CLIPS -> status[n] = FIRST; attempt[n] = 1; n++
        :: else -> break
        od;
        n = 0;
        do
        :: n < MONITORS ->
            age[n] = LEASE;
            run keeper(n); run drainer(n);
#if LOOKS > 0
            run looker(n);
#endif
            n++
        :: else -> break
        od;
        n = 0;
        run sender(); run clock()
    }
}

#ifdef LIVENESS
#define DONE (sent == SIGNALS && inbox[0] == 0 && inbox[1] == 0 && inbox[SIGNALS - 1] == 0)
ltl every_signal_is_judged { <> DONE }
#endif
