-- Whether a temperature is beyond the limits that there are; without any each one is.
CREATE OR REPLACE FUNCTION is_beyond(temperature double precision, above double precision, below double precision)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(temperature > above, false) OR coalesce(temperature < below, false)
    OR (above IS NULL AND below IS NULL);

-- Deletes single readings of a room, of an INSERT that is under way.
CREATE OR REPLACE FUNCTION delete_readings(
    building text, room text, instants timestamptz[], degrees double precision[]
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    first constant timestamptz := (SELECT min(instant) FROM unnest(instants) AS instant);
    last constant timestamptz := (SELECT max(instant) FROM unnest(instants) AS instant);
BEGIN
    DELETE FROM temperatures AS reading USING unnest(instants, degrees) AS gone (instant, degrees)
    WHERE building_id = building AND room_id = room AND reading.timestamp >= first AND reading.timestamp <= last
      AND reading.timestamp = gone.instant AND reading.temperature = gone.degrees;
END
$$;

-- Refuses to remove what cannot be: readings of a room or building, since <= timestamp < before, which were dropped, or
-- are about to be. They are in summaries, and none can be taken out of one. `average` knows the SQLSTATE.
CREATE OR REPLACE FUNCTION refuse_dropped(building text, room text, since timestamptz, before timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    horizon constant timestamptz := (SELECT dropped_before FROM upkeep);
    name text;
BEGIN
    IF since >= horizon THEN
        RETURN;
    END IF;
    FOR name IN SELECT room_id FROM rooms WHERE building_id = building AND coalesce(room, room_id) = room_id LOOP
        IF EXISTS (
            SELECT FROM room_hours WHERE building_id = building AND room_id = name
              AND hour > since - interval '1 hour' AND hour < least(before, horizon)
        ) OR EXISTS (
            SELECT FROM temperatures AS reading WHERE building_id = building AND room_id = name
              AND reading.timestamp >= since AND reading.timestamp < least(before, horizon)
        ) THEN
            RAISE EXCEPTION 'some of the readings were dropped' USING ERRCODE = 'TD001',
                DETAIL = to_char(horizon AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
        END IF;
    END LOOP;
END
$$;

-- What a removal would remove: for each room how many readings, the first and the last; without `before` also those of
-- which only summaries are left, by their hours.
CREATE OR REPLACE FUNCTION preview_removal(
    building text, room text, since timestamptz, before timestamptz, above double precision, below double precision
)
RETURNS TABLE (room_id text, readings bigint, first timestamptz, last timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    horizon constant timestamptz := (SELECT dropped_before FROM upkeep);
    dropped record;
BEGIN
    @need_timescaledb@;
    IF before IS NOT NULL THEN
        PERFORM refuse_dropped(building, room, since, before);
    END IF;
    FOR room_id IN
        SELECT rooms.room_id FROM rooms
        WHERE building_id = building AND coalesce(room, rooms.room_id) = rooms.room_id ORDER BY rooms.room_id
    LOOP
        SELECT count(*), min(reading.timestamp), max(reading.timestamp) INTO readings, first, last
        FROM temperatures AS reading
        WHERE building_id = building AND reading.room_id = room_id
          AND reading.timestamp >= coalesce(since, '-infinity') AND reading.timestamp < coalesce(before, 'infinity')
          AND is_beyond(reading.temperature, above, below);
        IF before IS NULL THEN
            SELECT coalesce(sum(count), 0) AS readings, min(hour) AS first, max(hour) AS last INTO dropped
            FROM room_hours WHERE building_id = building AND room_hours.room_id = room_id AND hour < horizon;
            readings := readings + dropped.readings;
            first := least(first, dropped.first);
            last := greatest(last, dropped.last);
        END IF;
        IF readings > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- Writes down what is to be removed; continue_removal() does it. From its commit on, none of it is stored again for so
-- long. Without `before` everything that is known of the room or building is meant. Asked for twice, what is not
-- finished is one removal, unless some of it may have come back; of what is finished, the later one says for how long
-- nothing comes back.
CREATE OR REPLACE FUNCTION begin_removal(
    building text, room text, since timestamptz, before timestamptz, above double precision, below double precision,
    who text, why text, keep_out interval, OUT removal uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    everything constant boolean := before IS NULL;
    meant record;
BEGIN
    -- Nothing is dropped meanwhile, and drop_expired() sees what is written down here.
    PERFORM FROM upkeep FOR SHARE;
    PERFORM pg_advisory_xact_lock(hashtext('temperature removals of ' || current_schema()));
    since := coalesce(since, '-infinity');
    before := coalesce(before, 'infinity');
    FOR meant IN
        SELECT id, finished, until FROM removals AS other
        WHERE other.building_id = building AND other.room_id IS NOT DISTINCT FROM room
          AND other.since = since AND other.before = before
          AND other.above IS NOT DISTINCT FROM above AND other.below IS NOT DISTINCT FROM below
          AND (other.finished IS NULL OR other.until > now())
    LOOP
        IF meant.finished IS NULL AND (meant.until > now() OR keep_out = interval '0') THEN
            removal := meant.id;
        ELSE
            UPDATE removals SET until = now() WHERE id = meant.id;
        END IF;
    END LOOP;
    IF removal IS NOT NULL THEN
        UPDATE removals SET until = now() + keep_out WHERE id = removal;
        RETURN;
    END IF;
    IF NOT everything THEN
        PERFORM refuse_dropped(building, room, since, before);
    END IF;
    INSERT INTO removals (
        building_id, room_id, since, before, above, below, everything, known_until, until, asked_by, reason
    )
    SELECT
        building, room, since, before, above, below, everything,
        greatest(now(), max(rooms.timestamp) + interval '0.000001'), now() + keep_out, who, why
    FROM rooms WHERE building_id = building AND coalesce(room, room_id) = room_id
    RETURNING id INTO removal;
END
$$;

-- Finds the hours of a room anew, from its readings, since <= hour < before.
CREATE OR REPLACE FUNCTION summarize_again(building text, room text, since timestamptz, before timestamptz)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    made constant record := summarize_hours(ARRAY[building], ARRAY[room], ARRAY[since], ARRAY[before]);
BEGIN
    IF made.shrunk_buildings IS NOT NULL THEN
        PERFORM find_extremes(made.shrunk_buildings, made.shrunk_hours);
    END IF;
    PERFORM summarize_days(made.day_buildings, made.day_rooms, made.days);
END
$$;

-- Forgets hours of a room of which only summaries are left: those before an instant, and those whose readings somebody
-- deleted by hand. Up to so many; returns how many.
CREATE OR REPLACE FUNCTION forget_hours(building text, room text, until timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    width constant interval := avg_temperature_bucket_width();
    name constant text := room;
    hours timestamptz[] := ARRAY(
        SELECT hour FROM room_hours WHERE building_id = building AND room_id = room AND hour < until
        ORDER BY hour LIMIT most
    );
    forgotten record;
    first timestamptz;
    reached timestamptz;
    averages text;
BEGIN
    PERFORM FROM room_hours WHERE building_id = building AND room_id = room AND hour >= until LIMIT 1;
    IF FOUND THEN
        hours := hours || ARRAY(
            SELECT hour FROM room_hours
            WHERE building_id = building AND room_id = room
              AND hour >= (SELECT greatest(until, dropped_before) FROM upkeep)
              AND NOT EXISTS (
                  SELECT FROM temperatures AS reading
                  WHERE reading.building_id = building AND reading.room_id = room
                    AND reading.timestamp >= hour AND reading.timestamp < hour + interval '1 hour'
              )
            ORDER BY hour LIMIT most - cardinality(hours)
        );
    END IF;
    WITH gone AS (
        DELETE FROM room_hours WHERE building_id = building AND room_id = room AND hour = ANY (hours)
        RETURNING hour, count, sum, min, max
    ), of_building AS (
        UPDATE building_hours AS kept SET count = kept.count - gone.count, sum = kept.sum - gone.sum
        FROM gone WHERE kept.building_id = building AND kept.hour = gone.hour
        RETURNING kept.hour, kept.count = 0 OR gone.min <= kept.min OR gone.max >= kept.max AS was_extreme
    )
    SELECT
        count(*)::integer AS number, array_agg(hour) FILTER (WHERE was_extreme) AS extremes,
        array_agg(DISTINCT date_bin('1 day', hour, '2000-01-03 00:00+00')) AS days,
        min(hour) AS first, max(hour) + interval '1 hour' AS reached
    INTO forgotten FROM of_building;
    first := forgotten.first;
    reached := forgotten.reached;
    @bucket_averages@;
    IF forgotten.extremes IS NOT NULL THEN
        PERFORM find_extremes(array_fill(building, ARRAY[cardinality(forgotten.extremes)]), forgotten.extremes);
    END IF;
    IF forgotten.days IS NOT NULL THEN
        PERFORM summarize_days(
            array_fill(building, ARRAY[cardinality(forgotten.days)]),
            array_fill(room, ARRAY[cardinality(forgotten.days)]), forgotten.days
        );
    END IF;
    RETURN forgotten.number;
END
$$;

-- An earlier version had other parameters.
DROP FUNCTION IF EXISTS find_latest(text, text);

-- Finds the latest reading of a room anew. Where only summaries are left it is the highest of the last hour, where that
-- begins; where nothing is left, the room is gone. Time that was emptied is passed over: the index has its readings until
-- the next VACUUM, and to walk past half a million of them takes longer than a writer may wait.
CREATE OR REPLACE FUNCTION find_latest(removal removals, room text, emptied tstzrange) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    building constant text := removal.building_id;
    latest record;
BEGIN
    SELECT found.timestamp, found.temperature INTO latest
    FROM (
        (
            SELECT reading.timestamp, reading.temperature FROM temperatures AS reading
            WHERE building_id = building AND room_id = room
              AND reading.timestamp >= coalesce(upper(emptied), '-infinity')
            ORDER BY reading.timestamp DESC FETCH FIRST ROW WITH TIES
        )
        UNION ALL
        (
            SELECT reading.timestamp, reading.temperature FROM temperatures AS reading
            WHERE building_id = building AND room_id = room AND reading.timestamp < lower(emptied)
            ORDER BY reading.timestamp DESC FETCH FIRST ROW WITH TIES
        )
        UNION ALL
        (
            SELECT hour, max FROM room_hours WHERE building_id = building AND room_id = room ORDER BY hour DESC LIMIT 1
        )
    ) AS found
    ORDER BY 1 DESC, 2 DESC LIMIT 1;
    IF FOUND THEN
        UPDATE rooms SET timestamp = latest.timestamp, temperature = latest.temperature
        WHERE building_id = building AND room_id = room;
    ELSE
        DELETE FROM rooms WHERE building_id = building AND room_id = room;
    END IF;
END
$$;

-- Withdraws alarms of a room, or of all rooms that are meant, whose readings were removed. One that goes on with a later
-- reading begins with that. A sink that was told of one is told that it is over; `watch` forgets it then.
DROP FUNCTION IF EXISTS withdraw_alarms(removals, text);
CREATE OR REPLACE FUNCTION withdraw_alarms(removal removals, room text, emptied tstzrange) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    alarm record;
    going_on record;
BEGIN
    FOR alarm IN
        SELECT * FROM alarms
        WHERE building_id = removal.building_id AND coalesce(room, removal.room_id, room_id) = room_id AND removed IS NULL
          AND (removal.everything OR (
              kind IN ('high', 'low') AND raised >= removal.since AND raised < least(removal.before, removal.known_until)
              AND is_beyond(alarms.temperature, removal.above, removal.below)
          ))
        ORDER BY building_id, room_id, kind, raised FOR UPDATE
    LOOP
        IF NOT removal.everything THEN
            SELECT earliest.timestamp, earliest.temperature INTO going_on
            FROM (
                SELECT reading.timestamp, reading.temperature FROM temperatures AS reading
                WHERE building_id = alarm.building_id AND room_id = alarm.room_id
                  AND reading.timestamp >= greatest(alarm.raised, upper(emptied)) AND reading.timestamp <= now()
                  AND (alarm.cleared IS NULL OR reading.timestamp < alarm.cleared OR reading.timestamp = alarm.raised)
                  AND CASE alarm.kind
                      WHEN 'high' THEN reading.temperature > alarm.threshold
                      ELSE reading.temperature < alarm.threshold
                  END
                ORDER BY reading.timestamp FETCH FIRST ROW WITH TIES
            ) AS earliest
            ORDER BY abs(earliest.temperature - alarm.threshold) DESC LIMIT 1;
            IF FOUND THEN
                IF (going_on.timestamp, going_on.temperature) IS DISTINCT FROM (alarm.raised, alarm.temperature) THEN
                    UPDATE alarms SET raised = going_on.timestamp, temperature = going_on.temperature
                    WHERE id = alarm.id;
                END IF;
                CONTINUE;
            END IF;
        END IF;
        UPDATE alarms SET removed = now(), cleared = coalesce(cleared, greatest(raised, now())) WHERE id = alarm.id;
        IF alarm.cleared IS NULL AND alarm.sink IS NOT NULL THEN
            INSERT INTO alarm_events (alarm, state, sink, raised, cleared, temperature)
            VALUES (
                alarm.id, 'cleared', alarm.sink, alarm.raised, greatest(alarm.raised, now()), alarm.temperature
            )
            ON CONFLICT DO NOTHING;
        END IF;
        DELETE FROM alarms WHERE id = alarm.id AND NOT EXISTS (
            SELECT FROM alarm_events WHERE alarm_events.alarm = alarm.id AND given_up IS NULL
        );
    END LOOP;
END
$$;

-- From when on a room may have readings, at `since` or later. An hour that is summed up has a summary where there are some.
-- Time that was emptied is passed over: its readings stay in the index until a VACUUM that no older transaction hinders.
CREATE OR REPLACE FUNCTION readings_may_begin(building text, room text, since timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT greatest(since, least(summed_until, late_from, (
        SELECT hour FROM room_hours
        WHERE building_id = building AND room_id = room AND hour > since - interval '1 hour' ORDER BY hour LIMIT 1
    )))
    FROM rooms WHERE building_id = building AND room_id = room
$$;

-- Removes the next readings, some thousand at most, of the rooms that are meant, one room after the other. In the same
-- transaction their summaries, latest readings and alarms are brought in line. It holds up a writer for less than 0.1 s.
-- Whoever calls it commits, and calls it again until all is removed.
CREATE OR REPLACE FUNCTION continue_removal(removal uuid, OUT readings bigint, OUT is_finished boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET lock_timeout = '50ms' SET jit = off
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    -- A processor takes 14 µs for each in the columnstore.
    most constant integer := 2500;
    ends constant timestamptz := clock_timestamp() + interval '30 ms';
    part removals;
    looked integer := 0;
    next text;
    passed text;
    room rooms;
    slice record;
    some_are_locked boolean := false;
    hours integer;
    emptied tstzrange;
BEGIN
    -- Whoever sums up takes turns: two that change the hours of one building would not see each other's rooms.
    PERFORM pg_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema()));
    SELECT * INTO part FROM removals WHERE id = removal FOR UPDATE;
    -- Of an hour that loses its lowest or highest reading, all rooms are looked at.
    hours := greatest(1, least(500, 20000 / greatest(1, (
        SELECT count(*) FROM (SELECT FROM rooms WHERE building_id = part.building_id LIMIT 20000) AS of_building
    ))));
    IF part.writers IS NULL THEN
        -- Who began to store before the removal was written down does not know of it, and may not have committed yet.
        part.writers := coalesce((
            SELECT array_agg(virtualtransaction) FROM pg_locks
            WHERE relation = 'temperatures'::regclass AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
              AND database = (SELECT datid FROM pg_stat_get_activity(pg_backend_pid()))
        ), '{}');
    END IF;
    IF part.reached_room = '' AND part.writers <> '{}' THEN
        -- They are ready in a moment, and need no other look then.
        IF NOT EXISTS (
            SELECT FROM pg_locks
            WHERE virtualtransaction = ANY (part.writers) AND relation = 'temperatures'::regclass
              AND mode = 'RowExclusiveLock'
        ) THEN
            part.writers := '{}';
        ELSIF clock_timestamp() < part.asked + interval '0.5 seconds' THEN
            looked := most;
        END IF;
    END IF;
    IF part.above IS NULL AND part.below IS NULL AND part.writers = '{}'
       AND part.until > clock_timestamp() + interval '1 minute' THEN
        -- Nothing comes to where it was, for longer than this step takes.
        emptied := tstzrange(part.since, greatest(part.since, least(part.before, part.asked)));
    END IF;
    WHILE part.finished IS NULL AND looked < most AND clock_timestamp() < ends LOOP
        next := (
            SELECT room_id FROM rooms
            WHERE building_id = part.building_id AND room_id >= part.reached_room
              AND coalesce(part.room_id, room_id) = room_id
            ORDER BY room_id LIMIT 1
        );
        IF next IS NULL THEN
            EXIT WHEN EXISTS (
                SELECT FROM pg_locks
                WHERE virtualtransaction = ANY (part.writers) AND relation = 'temperatures'::regclass
                  AND mode = 'RowExclusiveLock'
            );
            IF part.writers = '{}' THEN
                part.finished := clock_timestamp();
            ELSE
                -- Once more, for what they stored.
                part.writers := '{}';
                part.reached_room := '';
                part.reached := '-infinity';
            END IF;
            CONTINUE;
        END IF;
        IF next > part.reached_room THEN
            part.reached_room := next;
            part.reached := '-infinity';
        END IF;
        IF passed IS DISTINCT FROM next THEN
            -- The index may have many readings that were removed before. To walk past them once, while nobody waits, makes
            -- them known as such.
            PERFORM readings_up_to(
                part.building_id, ARRAY[next],
                readings_may_begin(part.building_id, next, greatest(part.since, part.reached)),
                least(part.before, part.known_until), 1
            );
            passed := next;
            CONTINUE WHEN some_are_locked;
        END IF;
        BEGIN
            SELECT * INTO room FROM rooms WHERE building_id = part.building_id AND room_id = next FOR UPDATE;
        EXCEPTION WHEN lock_not_available THEN
            EXIT;
        END;
        some_are_locked := true;
        CONTINUE WHEN NOT FOUND;
        -- What was committed before the lock was taken is seen from here on, and nothing of this room comes after it.
        slice := remove_slice(part, room, most, hours, emptied);
        looked := looked + slice.looked;
        part.removed := part.removed + slice.removed;
        part.reached := coalesce(slice.reached, part.reached);
        -- A room of which nothing is left is gone by now.
        CONTINUE WHEN slice.reached IS NOT NULL
            AND EXISTS (SELECT FROM rooms WHERE building_id = part.building_id AND room_id = next);
        IF part.everything THEN
            EXIT WHEN forget_hours(
                part.building_id, next,
                least((SELECT dropped_before FROM upkeep), date_bin('1 hour', part.asked, '2000-01-03 00:00+00')), hours
            ) >= hours;
            PERFORM find_latest(part, next, emptied);
        END IF;
        PERFORM withdraw_alarms(part, next, emptied);
        -- The next name that there may be.
        part.reached_room := next || chr(1);
        part.reached := '-infinity';
        looked := looked + 1;
    END LOOP;
    IF part.finished IS NOT NULL AND part.everything THEN
        PERFORM withdraw_alarms(part, NULL, emptied);
    END IF;
    UPDATE removals SET
        removed = part.removed, finished = part.finished, writers = part.writers, reached_room = part.reached_room,
        reached = part.reached
    WHERE id = removal AND finished IS NULL;
    IF part.finished IS NULL THEN
        -- What is lost in a crash is removed again.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    readings := part.removed;
    is_finished := part.finished IS NOT NULL;
END
$$;

-- Removes the next readings of a room that is locked. Returns how many were looked at and removed, and up to which
-- instant; none if that is all of them.
DROP FUNCTION IF EXISTS remove_slice(removals, rooms, integer);
CREATE OR REPLACE FUNCTION remove_slice(
    part removals, room rooms, most integer, hours integer, emptied tstzrange,
    OUT looked integer, OUT removed integer, OUT reached timestamptz
)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    building constant text := part.building_id;
    name constant text := room.room_id;
    first timestamptz := readings_may_begin(part.building_id, room.room_id, greatest(part.since, part.reached));
    end_ constant timestamptz := least(part.before, part.known_until);
    above constant double precision := part.above;
    below constant double precision := part.below;
    width constant interval := avg_temperature_bucket_width();
    span record;
    averages text;
BEGIN
    looked := 0;
    removed := 0;
    first := (
        SELECT reading.timestamp FROM temperatures AS reading
        WHERE building_id = building AND room_id = name AND reading.timestamp >= first AND reading.timestamp < end_
        ORDER BY reading.timestamp LIMIT 1
    );
    IF first IS NULL THEN
        RETURN;
    END IF;
    reached := (
        SELECT reading.timestamp FROM temperatures AS reading
        WHERE building_id = building AND room_id = name AND reading.timestamp > first AND reading.timestamp < end_
        ORDER BY reading.timestamp OFFSET most LIMIT 1
    );
    -- What has no limits is counted below.
    looked := CASE WHEN reached IS NULL THEN 0 ELSE most END;
    -- Each hour has its summaries.
    reached := least(coalesce(reached, end_), first + hours * interval '1 hour');
    WITH gone AS (
        DELETE FROM temperatures AS reading
        WHERE building_id = building AND room_id = name AND reading.timestamp >= first AND reading.timestamp < reached
          AND is_beyond(reading.temperature, above, below)
        RETURNING reading.timestamp, reading.temperature
    )
    SELECT
        count(*)::integer AS number,
        -- What came late to hours that were dropped is in no summary yet.
        greatest(
            date_bin('1 hour', min(gone.timestamp), '2000-01-03 00:00+00'), (SELECT dropped_before FROM upkeep)
        ) AS since,
        least(date_bin('1 hour', max(gone.timestamp), '2000-01-03 00:00+00') + interval '1 hour', room.summed_until)
            AS before,
        bool_or((gone.timestamp, gone.temperature) = (room.timestamp, room.temperature)) AS was_latest
    INTO span FROM gone;
    removed := span.number;
    looked := greatest(looked, removed + 1);
    IF removed = 0 THEN
        RETURN;
    END IF;
    @bucket_averages@;
    IF span.since < span.before THEN
        PERFORM summarize_again(building, name, span.since, span.before);
    END IF;
    IF span.was_latest THEN
        -- What of it is not reached yet will be.
        PERFORM find_latest(part, name, emptied * tstzrange(NULL, reached));
    END IF;
END
$$;

-- Finishes what removals are left, until the deadline. It commits often.
CREATE OR REPLACE PROCEDURE finish_removals(deadline timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    unfinished record;
    before removals;
    place removals;
BEGIN
    PERFORM set_config('search_path', @search_path@, true);
    FOR unfinished IN SELECT id FROM removals WHERE finished IS NULL ORDER BY asked LOOP
        before := NULL;
        WHILE clock_timestamp() < deadline LOOP
            BEGIN
                EXIT WHEN (continue_removal(unfinished.id)).is_finished;
            EXCEPTION
                WHEN lock_not_available THEN
                    -- The next run tries again.
                    EXIT;
                WHEN OTHERS THEN
                    -- So it does, and everything else goes on.
                    RAISE WARNING 'the removal % failed: %', unfinished.id, SQLERRM;
                    EXIT;
            END;
            SELECT * INTO place FROM removals WHERE id = unfinished.id;
            -- So it does where the step had to wait for somebody.
            EXIT WHEN place IS NOT DISTINCT FROM before;
            before := place;
            COMMIT;
            PERFORM set_config('search_path', @search_path@, true);
        END LOOP;
        COMMIT;
        PERFORM set_config('search_path', @search_path@, true);
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION
    preview_removal(text, text, timestamptz, timestamptz, double precision, double precision),
    begin_removal(text, text, timestamptz, timestamptz, double precision, double precision, text, text, interval),
    continue_removal(uuid)
FROM PUBLIC;
