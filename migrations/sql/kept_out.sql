-- Whether a reading of `added` was removed, and does not come back yet. It is part of mark_rooms().
EXISTS (
        SELECT FROM removals
        WHERE removals.building_id = added.building_id AND coalesce(removals.room_id, added.room_id) = added.room_id
          AND added.timestamp >= since AND added.timestamp < least(before, asked)
          AND is_beyond(added.temperature, above, below) AND until > now()
    )
