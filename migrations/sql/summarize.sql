-- When summarize() last came to its end, in seconds since 1970. A row would be locked for as long as somebody else keeps
-- it, and leaves a dead one behind every minute.
CREATE SEQUENCE IF NOT EXISTS summarized;
-- Until it has, since when it could have.
SELECT setval('summarized', extract(epoch FROM now())::bigint, false) FROM summarized WHERE last_value = 1 AND NOT is_called;

-- Brings all summaries up to date, and drops what is older than the retention: as a job of TimescaleDB, whose arguments
-- it has, or by CALL summarize(). It commits often, and holds up a writer for less than 0.1 s each time; it may end
-- anywhere, and run twice at once, when one of the two leaves the work to the other. {"seconds": 5} in `config` says how
-- long it goes on at most; it is over well before a `statement_timeout` would end it.
CREATE OR REPLACE PROCEDURE summarize(job_id integer DEFAULT 0, config jsonb DEFAULT '{}')
LANGUAGE plpgsql AS $$
DECLARE
    deadline constant timestamptz := clock_timestamp() + least(
        make_interval(secs => coalesce((config ->> 'seconds')::double precision, 50)),
        nullif(current_setting('statement_timeout')::interval, '0') / 2
    );
    -- For one transaction. A processor takes 1.4 µs for a reading, or 2 in the columnstore.
    readings_wanted constant integer := 15000;
    few_room_hours constant integer := 16;
    -- So many may turn out to have a reading each, behind some that had none.
    most_room_hours constant integer := 10000;
    room_hours integer := few_room_hours;
    buildings text[];
    names text[];
    next integer := 1;
    width integer;
    done record;
    held record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- Who waits for a room has to see what was committed meanwhile.
        PERFORM set_config('default_transaction_isolation', 'read committed', false);
        COMMIT;
    END IF;
    -- A procedure that commits cannot have its own search_path.
    PERFORM set_config('search_path', @search_path@, true);
    -- Half of the time, so that a long removal does not keep everything else waiting.
    CALL finish_removals(clock_timestamp() + (deadline - clock_timestamp()) / 2);
    SELECT array_agg(building_id ORDER BY building_id, room_id), array_agg(room_id ORDER BY building_id, room_id)
    INTO buildings, names FROM unsummarized;
    WHILE next <= cardinality(buildings) AND clock_timestamp() < deadline LOOP
        IF NOT pg_try_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema())) THEN
            RETURN;
        END IF;
        -- A summary that is lost in a crash is made again.
        PERFORM set_config('synchronous_commit', 'off', true);
        -- Plans without sequential scans seem costly enough to compile them, which takes longer than the work.
        PERFORM set_config('jit', 'off', true);
        LOOP
            -- A day that is summed up in parts is put together anew for each.
            width := least(greatest(1, room_hours / 24), cardinality(buildings) - next + 1);
            -- The hours before may have had one reading each, or none.
            EXIT WHEN room_hours <= few_room_hours OR NOT more_readings(
                buildings[next : next + width - 1], names[next : next + width - 1], room_hours / width,
                than => 2 * readings_wanted
            );
            room_hours := greatest(few_room_hours, room_hours / 4);
        END LOOP;
        done := summarize_rooms(
            buildings[next : next + width - 1], names[next : next + width - 1], room_hours / width, patient => false
        );
        COMMIT;
        PERFORM set_config('search_path', @search_path@, true);
        IF NOT done.more THEN
            next := next + width;
        END IF;
        room_hours := CASE
            WHEN done.readings < readings_wanted / 2 THEN least(2 * room_hours, most_room_hours)
            WHEN done.readings > readings_wanted THEN greatest(1, room_hours / 2)
            ELSE room_hours
        END;
    END LOOP;
    -- Those that writers held, one at a time: who waits holds nothing that another one waits for.
    FOR held IN SELECT building_id, room_id FROM unsummarized LOOP
        EXIT WHEN clock_timestamp() > deadline;
        IF NOT pg_try_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema())) THEN
            RETURN;
        END IF;
        PERFORM set_config('lock_timeout', '50ms', true), set_config('jit', 'off', true);
        BEGIN
            PERFORM summarize_rooms(
                ARRAY[held.building_id], ARRAY[held.room_id],
                CASE
                    WHEN more_readings(
                        ARRAY[held.building_id], ARRAY[held.room_id], room_hours, than => 2 * readings_wanted
                    )
                    THEN few_room_hours ELSE room_hours
                END,
                patient => true
            );
        EXCEPTION WHEN lock_not_available THEN
            -- The next run tries again.
        END;
        COMMIT;
        PERFORM set_config('search_path', @search_path@, true);
    END LOOP;
    FOR held IN SELECT building_id, room_id FROM rooms WHERE courses_missing_before IS NOT NULL LOOP
        WHILE clock_timestamp() < deadline LOOP
            IF NOT pg_try_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema())) THEN
                RETURN;
            END IF;
            PERFORM set_config('synchronous_commit', 'off', true), set_config('jit', 'off', true);
            EXIT WHEN NOT complete_courses(held.building_id, held.room_id, readings_wanted);
            COMMIT;
            PERFORM set_config('search_path', @search_path@, true);
        END LOOP;
    END LOOP;
    WHILE clock_timestamp() < deadline LOOP
        IF NOT pg_try_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema())) THEN
            RETURN;
        END IF;
        EXIT WHEN NOT drop_expired();
        COMMIT;
        PERFORM set_config('search_path', @search_path@, true);
    END LOOP;
    PERFORM set_config('synchronous_commit', 'off', true),
        setval('summarized', extract(epoch FROM clock_timestamp())::bigint);
END
$$;
